//! libFuzzer's entry. The target is chosen by name in `SIGNET_FUZZ_TARGET`, so that a new line in
//! `signet_fuzz::TARGETS` is all a new target needs.
#![no_main]

use std::sync::LazyLock;

static TARGET: LazyLock<&'static signet_fuzz::Target> = LazyLock::new(|| {
    let name = std::env::var("SIGNET_FUZZ_TARGET").unwrap_or_default();
    signet_fuzz::target(&name).unwrap_or_else(|| {
        let names: Vec<_> = signet_fuzz::TARGETS.iter().map(|target| target.name).collect();
        eprintln!("SIGNET_FUZZ_TARGET={name}: no such target, there are: {}", names.join(" "));
        std::process::exit(2);
    })
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| (TARGET.run)(data));
