//! A certificate for 127.0.0.1, and the CA certificate that signed it. They are separate, because
//! clients reject a CA certificate as a server's.

use std::process::Command;

use crate::program::{Directory, run};

/// Writes `ca.pem`, `server.pem` and `server.key`.
pub(crate) fn create(directory: &Directory) {
    let path = |name| directory.file(name);
    directory.write("server.ext", "subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE\n");
    let new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let openssl = |arguments: &[&str]| {
        let mut command = Command::new("openssl");
        command.args(arguments);
        command
    };
    run(openssl(&["req", "-x509", "-days", "2", "-subj", "/CN=Roomcast tests"])
        .args(new_key)
        .arg("-keyout")
        .arg(path("ca.key"))
        .arg("-out")
        .arg(path("ca.pem")));
    run(openssl(&["req", "-new", "-subj", "/CN=127.0.0.1"])
        .args(new_key)
        .arg("-keyout")
        .arg(path("server.key"))
        .arg("-out")
        .arg(path("server.csr")));
    run(openssl(&["x509", "-req", "-days", "2", "-CAcreateserial"])
        .arg("-in")
        .arg(path("server.csr"))
        .arg("-CA")
        .arg(path("ca.pem"))
        .arg("-CAkey")
        .arg(path("ca.key"))
        .arg("-extfile")
        .arg(path("server.ext"))
        .arg("-out")
        .arg(path("server.pem")));
}
