//! What stands in a report.

/// Something that stands in a report by its name.
pub(crate) trait Named {
    /// Its name.
    fn name(&self) -> String;
}

impl Named for &str {
    fn name(&self) -> String {
        (*self).to_owned()
    }
}
