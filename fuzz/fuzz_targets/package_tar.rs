#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| stormkeeper_fuzz_bodies::package_tar(data));
