//! How many buffers the kernel has to pick from: as many as one turn may need, by what turns have needed.

/// Turns after which a window that is too wide is made narrower.
const LOOK_EVERY: u16 = 256;

/// A window follows bursts at once, and their end slowly.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// Buffers in the kernel's hands.
    pub(super) given: u16,
    width: u16,
    min: u16,
    max: u16,
    /// Most that one turn has picked since the last look.
    most: u16,
    turns: u16,
}

impl Window {
    /// Nothing is given yet.
    pub(super) const fn new(min: u16, max: u16) -> Self {
        Self { given: 0, width: min, min, max, most: 0, turns: 0 }
    }

    /// A turn begins; how many buffers are to be given.
    pub(super) fn turn(&mut self) -> u16 {
        let picked = self.width.saturating_sub(self.given);
        self.most = self.most.max(picked);
        self.turns += 1;
        // Half of it at once: the next burst may want all, and who finds none pays for a receive of another kind.
        if picked > self.width / 2 && self.turns > 1 {
            self.width = (self.width * 2).min(self.max);
        } else if self.turns >= LOOK_EVERY {
            if self.most <= self.width / 8 {
                self.width = (self.width / 2).max(self.min);
            }
            (self.most, self.turns) = (0, 1);
        }
        self.width.saturating_sub(self.given)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A turn that picks `picks`, or as many as there are; what it gave before.
    fn turn(window: &mut Window, picks: u16) -> u16 {
        let gives = window.turn();
        window.given += gives;
        window.given -= picks.min(window.given);
        gives
    }

    #[test]
    fn bursts_widen_it_and_their_end_narrows_it() {
        let mut window = Window::new(32, 512);
        assert_eq!(turn(&mut window, 0), 32);
        for _ in 0..10_000 {
            assert!(turn(&mut window, 10) <= 32);
        }
        assert_eq!(window.width, 32);
        for _ in 0..6 {
            turn(&mut window, 512);
        }
        assert_eq!(window.width, 512);
        // What is halved must hold twice what is needed.
        for _ in 0..20 * usize::from(LOOK_EVERY) {
            turn(&mut window, 20);
        }
        assert_eq!(window.width, 128);
        for _ in 0..20 * usize::from(LOOK_EVERY) {
            turn(&mut window, 0);
        }
        assert_eq!(window.width, 32);
    }

    #[test]
    fn the_kernel_never_has_more_than_the_window() {
        let mut window = Window::new(4, 32);
        for picks in (0..1000).map(|turn| turn * 7 % 33) {
            turn(&mut window, picks);
            assert!(window.given <= window.width && window.width <= 32);
        }
    }
}
