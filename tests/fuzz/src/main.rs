//! One target under libFuzzer, which brings `main` and its own arguments: `cargo xtask fuzz` starts it.
#![cfg_attr(not(test), no_main)]

libfuzzer_sys::fuzz_target!(
    init: {
        lb_fuzz::begin::chosen();
    },
    |input: &[u8]| (lb_fuzz::begin::chosen().run)(input)
);
