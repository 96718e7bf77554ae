//! What datachannel-sys calls of the crate openssl-src, with the OpenSSL that the system has.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, os::unix::fs::symlink};

#[derive(Default)]
pub struct Build {}

pub struct Artifacts {
    lib: PathBuf,
}

impl Build {
    pub fn new() -> Self {
        Self::default()
    }

    /// Lays out `lib` and `include` below OUT_DIR as links to the system's.
    pub fn build(&mut self) -> Artifacts {
        let root = PathBuf::from(env::var("OUT_DIR").expect("OUT_DIR")).join("openssl");
        let _ = fs::remove_dir_all(&root);
        let (lib, include) = (root.join("lib"), root.join("include"));
        fs::create_dir_all(&lib).expect("create lib");
        fs::create_dir_all(&include).expect("create include");
        let system = PathBuf::from(of_system("libdir"));
        for name in ["libcrypto.a", "libssl.a"] {
            symlink(system.join(name), lib.join(name)).expect("link a library");
        }
        let headers = PathBuf::from(of_system("includedir")).join("openssl");
        symlink(headers, include.join("openssl")).expect("link the headers");
        Artifacts { lib }
    }
}

impl Artifacts {
    pub fn lib_dir(&self) -> &Path {
        &self.lib
    }
}

fn of_system(variable: &str) -> String {
    let told = Command::new("pkg-config")
        .args(["--variable", variable, "libcrypto"])
        .output()
        .expect("run pkg-config");
    assert!(told.status.success(), "pkg-config knows no libcrypto: install libssl-dev");
    String::from_utf8(told.stdout).expect("a path").trim().to_owned()
}
