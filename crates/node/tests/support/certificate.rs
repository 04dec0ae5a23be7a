//! Certificates for the public listener.

use std::path::Path;
use std::process::Command;

/// Writes a new certificate for 127.0.0.1, signed by itself, and its key over those of this name; their paths.
pub fn write_certificate(name: &str) -> [String; 2] {
    let path = |kind: &str| {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.{kind}"));
        path.to_str().expect("a path in UTF-8").to_owned()
    };
    let (certificate, key) = (path("pem"), path("key"));
    let openssl = Command::new("openssl")
        .args(["req", "-x509", "-days", "2", "-subj", "/CN=node", "-newkey", "ec", "-nodes"])
        .args(["-pkeyopt", "ec_paramgen_curve:P-256", "-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", &key, "-out", &certificate])
        .output();
    assert!(openssl.expect("openssl starts").status.success());
    [certificate, key]
}
