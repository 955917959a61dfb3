//! The pure half (skeleton).
#![no_std]
