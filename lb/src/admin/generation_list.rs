//! The list of configs that ran, and one of them.

use serde_json::{Value, json};

use super::{generations::GenerationView, view::View};
use crate::model::Generation;

/// Rows of `GET /v1/generations`. Where nothing keeps them, the config that was started with is the only one.
pub(super) fn rows(view: &View) -> Vec<Value> {
    if !view.generations.is_empty() {
        return view.generations.iter().map(GenerationView::to_json).collect();
    }
    let path = view.config_path.as_ref();
    vec![json!({
        "generation": view.snapshot.generation,
        "state": "current",
        "when": null,
        "by": "start",
        "uid": null,
        "pid": null,
        "source": path.map_or_else(|| "quickstart".to_owned(), |path| path.display().to_string()),
        "digest": view.etag,
        "changed": [],
    })]
}

/// `GET /v1/generations/{n}`: its row, and its config. `None`: there is no such generation.
///
/// # Errors
/// Why it cannot be read now.
pub(super) async fn document(view: &View, generation: Generation) -> Result<Option<Value>, String> {
    let Some(mut row) = rows(view).into_iter().find(|row| row["generation"] == generation.0) else {
        return Ok(None);
    };
    let config = if generation == view.snapshot.generation {
        Some(view.config.to_json())
    } else {
        match &view.documents {
            Some(source) => source.read(generation).await?,
            None => None,
        }
    };
    Ok(config.map(|config| {
        row["config"] = config;
        row
    }))
}
