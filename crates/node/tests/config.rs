//! What the node is told: by which of flag, environment, file and default, and what it says when it is wrong.

mod support;

use std::net::TcpListener;
use std::process::Command;

use support::certificate::write_certificate;
use support::{BINARY, error_of, run, run_to_its_end, without_options, write_file};

const EXIT_FAILURE: i32 = 1;
const EXIT_USAGE: i32 = 2;

/// What `roomcast check` says about an option: its value and where that was said.
fn checked(key: &str, arguments: &[&str], variables: &[(&str, &str)]) -> (String, String) {
    let output = run(&[&["check"], arguments].concat(), variables);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    let found = said.lines().find_map(|line| {
        let (found, rest) = line.split_once('=')?;
        let (value, source) = rest.rsplit_once('(')?;
        (found.trim() == key).then(|| (value.trim().to_owned(), source.trim_end_matches(')').to_owned()))
    });
    found.unwrap_or_else(|| panic!("nothing about {key} in:\n{said}"))
}

fn pair(value: &str, source: &str) -> (String, String) {
    (value.to_owned(), source.to_owned())
}

// === precedence ===

#[test]
fn a_flag_goes_before_the_environment_before_the_file_before_the_default() {
    let file = write_file("precedence.toml", "max_payload = \"3KiB\"\n[drain]\ndelay = \"3s\"\n");
    let options = [
        ("max_payload", "--max-payload", "ROOMCAST_MAX_PAYLOAD", 1, ["1KiB", "2KiB", "3KiB", "1MiB"]),
        ("drain.delay", "--drain-delay", "ROOMCAST_DRAIN_DELAY", 3, ["1s", "2s", "3s", "5s"]),
    ];
    for (key, flag, variable, line, [by_flag, by_variable, by_file, by_default]) in options {
        let (file_arguments, variables) = (["--config", file.as_str()], [(variable, by_variable)]);
        let all_arguments = ["--config", &file, flag, by_flag];
        assert_eq!(checked(key, &all_arguments, &variables), pair(by_flag, flag));
        assert_eq!(checked(key, &file_arguments, &variables), pair(by_variable, variable));
        assert_eq!(checked(key, &file_arguments, &[]), pair(by_file, &format!("{file}:{line}")));
        assert_eq!(checked(key, &[], &[]), pair(by_default, "default"));
        assert_eq!(checked(key, &[flag, by_flag], &[]), pair(by_flag, flag));
    }
}

#[test]
fn the_file_can_be_named_by_a_variable_and_a_flag_goes_before_it() {
    let by_variable = write_file("by-variable.toml", "max_calls = 2\n");
    let by_flag = write_file("by-flag.toml", "max_calls = 1\n");
    let variables = [("ROOMCAST_CONFIG", by_variable.as_str())];
    assert_eq!(checked("max_calls", &[], &variables).0, "2");
    assert_eq!(checked("max_calls", &["--config", &by_flag], &variables).0, "1");
}

#[test]
fn a_switch_is_said_in_every_place_in_its_way() {
    let file = write_file("switch.toml", "demo = true\nmax_connections = 7\n");
    assert_eq!(checked("demo", &[], &[]), pair("false", "default"));
    assert_eq!(checked("demo", &["--demo"], &[]), pair("true", "--demo"));
    assert_eq!(checked("demo", &["--demo=false", "--config", &file], &[]), pair("false", "--demo"));
    assert_eq!(checked("demo", &[], &[("ROOMCAST_DEMO", "true")]), pair("true", "ROOMCAST_DEMO"));
    assert_eq!(checked("demo", &["--config", &file], &[]), pair("true", &format!("{file}:1")));
    assert_eq!(checked("max_connections", &["--config", &file], &[]).0, "7");
}

// === errors ===

/// Both `check` and `serve` refuse it in the same words, and the words have all these parts.
fn assert_refused(arguments: &[&str], variables: &[(&str, &str)], parts: &[&str]) {
    let [check, serve] =
        ["check", "serve"].map(|command| error_of(&run(&[&[command], arguments].concat(), variables), EXIT_USAGE));
    assert_eq!(check.replace(" check ", " serve "), serve);
    for part in parts {
        assert!(serve.contains(part), "{part:?} is not in: {serve}");
    }
}

/// An option's key, flag and variable, a bad value, and what is allowed.
const BAD_VALUES: [(&str, &str, &str, &str, &str); 14] = [
    ("listen", "--listen", "ROOMCAST_LISTEN", "localhost", "127.0.0.1:3000"),
    ("trusted_proxies", "--trusted-proxies", "ROOMCAST_TRUSTED_PROXIES", "10.0.0.0/8,proxy", "fd00::/8"),
    ("internal_listen", "--internal-listen", "ROOMCAST_INTERNAL_LISTEN", "none", "off"),
    ("api_rate", "--api-rate", "ROOMCAST_API_RATE", "0", "from 1 to 4294967295"),
    ("demo", "--demo", "ROOMCAST_DEMO", "yes", "true or false"),
    ("max_payload", "--max-payload", "ROOMCAST_MAX_PAYLOAD", "1MB", "1MiB"),
    ("max_payload", "--max-payload", "ROOMCAST_MAX_PAYLOAD", "67108865", "to 64MiB"),
    ("max_calls", "--max-calls", "ROOMCAST_MAX_CALLS", "0", "at least 1"),
    ("ping_interval", "--ping-interval", "ROOMCAST_PING_INTERVAL", "0s", "over 0"),
    ("drain.delay", "--drain-delay", "ROOMCAST_DRAIN_DELAY", "5 parsecs", "500ms"),
    ("worker_threads", "--worker-threads", "ROOMCAST_WORKER_THREADS", "many", "number"),
    ("worker_threads", "--worker-threads", "ROOMCAST_WORKER_THREADS", "5000", "at most 1024"),
    ("log", "--log", "ROOMCAST_LOG", "inof", "\"inof\" is not a log level (error, warn, info, debug, trace)"),
    ("log_format", "--log-format", "ROOMCAST_LOG_FORMAT", "xml", "text or json"),
];

#[test]
fn a_bad_value_of_a_flag_is_refused_with_the_flag_the_value_and_what_is_allowed() {
    for (_, flag, _, value, allowed) in BAD_VALUES {
        assert_refused(&[&format!("{flag}={value}")], &[], &[flag, value, allowed]);
    }
}

#[test]
fn a_bad_value_in_the_environment_is_refused_with_the_variable_the_value_and_what_is_allowed() {
    for (_, _, variable, value, allowed) in BAD_VALUES {
        assert_refused(&[], &[(variable, value)], &[variable, value, allowed]);
    }
}

#[test]
fn a_bad_value_in_the_file_is_refused_with_the_file_the_key_the_value_and_what_is_allowed() {
    for (key, _, _, value, allowed) in BAD_VALUES {
        let file = write_file(&format!("bad-{key}.toml"), &format!("{key} = \"{value}\"\n"));
        assert_refused(&["--config", &file], &[], &[&file, key, value, allowed]);
    }
}

#[test]
fn a_variable_that_is_not_utf_8_is_refused_and_not_passed_over() {
    use std::os::unix::ffi::OsStrExt;
    let mut command = Command::new(BINARY);
    without_options(&mut command);
    command.arg("check").env("ROOMCAST_MAX_PAYLOAD", std::ffi::OsStr::from_bytes(b"1\xff"));
    let error = error_of(&run_to_its_end(&mut command), EXIT_USAGE);
    assert!(error.contains("ROOMCAST_MAX_PAYLOAD"), "{error}");
}

#[test]
fn a_file_with_an_unknown_key_a_value_of_another_kind_or_no_toml_is_refused() {
    let cases = [
        ("unknown-key", "max_paylod = 1\n", [":1: max_paylod: unknown key", "did you mean max_payload?"]),
        ("unknown-table", "[drian]\ndelay = \"1s\"\n", [":1: drian: unknown key", "did you mean drain?"]),
        (
            "unknown-in-table",
            "[drain]\ndelays = \"1s\"\n",
            [":2: drain.delays: unknown key", "did you mean drain.delay?"],
        ),
        ("no-scalar", "max_calls = [1]\n", [":1: max_calls: found an array", "a number"]),
        ("no-table", "drain = 5\n", [":1: drain: found a number", "a table"]),
        ("unlike-any", "colour = 5\n", [":1: colour: unknown key", "`roomcast serve --help` lists"]),
        ("no-toml", "max_calls 1\n", [":1: invalid TOML", "column 11"]),
        ("no-quotes", "listen = 127.0.0.1:3000\n", [":1: invalid TOML", "put text in quotes"]),
        ("twice", "max_calls = 1\nmax_calls = 2\n", [":2: invalid TOML", "column 1"]),
    ];
    for (name, content, [first, second]) in cases {
        let file = write_file(&format!("{name}.toml"), content);
        assert_refused(&["--config", &file], &[], &[&file, first, second]);
    }
    assert_refused(&["--config", "/nonexistent.toml"], &[], &["--config", "/nonexistent.toml"]);
}

#[test]
fn an_unknown_variable_is_refused_unless_kubernetes_sets_it() {
    assert_refused(&[], &[("ROOMCAST_MAX_CALL", "5")], &["ROOMCAST_MAX_CALL:", "did you mean ROOMCAST_MAX_CALLS?"]);
    assert_refused(&[], &[("ROOMCAST_COLOUR", "5")], &["ROOMCAST_COLOUR:", "`roomcast serve --help` lists"]);
    let of_a_service = [("ROOMCAST_PORT", "tcp://10.0.0.1:3000"), ("ROOMCAST_PORT_3000_TCP", "tcp://10.0.0.1:3000")];
    assert_eq!(checked("max_calls", &[], &of_a_service), pair("1024", "default"));
}

#[test]
fn an_unknown_flag_is_refused() {
    assert_refused(&["--max-paylod=1"], &[], &["--max-paylod"]);
}

#[test]
fn a_drain_that_has_no_time_for_its_delay_and_duration_is_refused() {
    let times = ["--drain-delay=5s", "--drain-duration=10s"];
    assert_refused(
        &[&times[..], &["--drain-timeout=14s"]].concat(),
        &[],
        &["--drain-timeout", "14s", "drain.delay (5s, --drain-delay) and drain.duration (10s, --drain-duration)"],
    );
    let enough = [&times[..], &["--drain-timeout=15s"]].concat();
    assert_eq!(checked("drain.timeout", &enough, &[]).0, "15s");
}

#[test]
fn a_switch_without_an_equals_sign_is_refused_with_the_form_that_it_needs() {
    assert_refused(&["--demo", "yes"], &[], &["--demo=true"]);
}

#[test]
fn two_listeners_at_one_address_are_refused() {
    for (public, internal) in
        [("127.0.0.1:4000", "127.0.0.1:4000"), ("0.0.0.0:4000", "127.0.0.1:4000"), ("[::]:4000", "[::1]:4000")]
    {
        let arguments = ["--listen", public, "--internal-listen", internal];
        assert_refused(&arguments, &[], &["--internal-listen", internal, "it overlaps with listen", public]);
    }
    for (public, internal) in [("127.0.0.1:0", "127.0.0.1:0"), ("127.0.0.2:4000", "127.0.0.1:4000")] {
        let arguments = ["--listen", public, "--internal-listen", internal];
        assert_eq!(checked("internal_listen", &arguments, &[]).0, internal);
    }
}

#[test]
fn sentinels_without_the_name_of_a_master_are_refused() {
    assert_refused(&["--redis", "redis-sentinel://127.0.0.1:1"], &[], &["add ?sentinelServiceName=NAME"]);
}

// === certificates ===

#[test]
fn a_certificate_and_its_key_are_given_together_and_each_in_its_place() {
    let [certificate, key] = &write_certificate("config");
    let junk = &write_file("junk.pem", "junk\n");
    let with = |certificate: &str, key: &str| [format!("--tls-cert={certificate}"), format!("--tls-key={key}")];
    let [cert_flag, key_flag] = with(certificate, key);
    assert_refused(&[&cert_flag], &[], &["--tls-cert", "a certificate requires its private key"]);
    assert_refused(&[&key_flag], &[], &["--tls-key", "a private key requires its certificate"]);
    for (certificate, key, flag, error) in [
        (junk, key, "--tls-cert", format!("{junk} contains no certificate\n")),
        (certificate, junk, "--tls-key", format!("{junk} contains no key\n")),
        (
            key,
            certificate,
            "--tls-cert",
            format!("{key} contains no certificate; did you swap the certificate and the key?"),
        ),
        (
            certificate,
            certificate,
            "--tls-key",
            format!("{certificate} contains no key; did you swap the certificate and the key?"),
        ),
    ] {
        let [cert_flag, key_flag] = with(certificate, key);
        assert_refused(&[&cert_flag, &key_flag], &[], &[flag, &error]);
    }
    assert_eq!(checked("tls_key", &[&cert_flag, &key_flag], &[]).0, *key);
}

// === lifecycle events ===

#[test]
fn a_wrong_table_of_lifecycle_events_is_reported_with_what_to_change() {
    let good = "[[backend]]\nname = \"chat\"\nurl = \"http://chat:8080/rpc\"\n\n\
                [hooks.events]\nbackend = \"chat\"\nkinds = [\"vacated\"]\nrooms = [\"game:*\"]\n";
    let file = write_file("events-good.toml", good);
    assert_eq!(checked("hooks.events_max", &["--config", &file], &[]).0, "100000");
    for (name, from, to, expected) in [
        ("backend", "backend = \"chat\"", "backend = \"chta\"", "hooks.events.backend: there is no backend \"chta\""),
        ("kind", "\"vacated\"", "\"emptied\"", "hooks.events.kinds.0: \"emptied\" is not a kind of events"),
        ("kinds", "\"vacated\"", "", "hooks.events.kinds: it is empty"),
        ("rooms", "rooms = [\"game:*\"]", "", "hooks.events.rooms: the kinds occupied and vacated need patterns"),
        ("no-rooms", "\"vacated\"", "\"left\"", "hooks.events.rooms: only the kinds occupied and vacated have"),
        ("pattern", "game:*", "game-*", "hooks.events.rooms: pattern \"game-*\""),
        ("secret", "url =", "signing_secret_file = \"/nowhere\"\nurl =", "cannot read /nowhere"),
    ] {
        let file = write_file(&format!("events-{name}.toml"), &good.replace(from, to));
        let error = error_of(&run(&["serve", "--config", &file], &[]), EXIT_USAGE);
        assert!(error.contains(expected), "{expected:?} is not in: {error}");
    }
}

// === the API's key ===

#[test]
fn an_internal_listener_off_loopback_needs_a_key() {
    let open = ["--internal-listen=0.0.0.0:0"];
    assert_refused(&open, &[], &["--internal-listen", "0.0.0.0:0", "api_key", "ROOMCAST_API_KEY", "127.0.0.1"]);
    assert_refused(&["--internal-listen=[::]:0"], &[], &["--internal-listen", "api_key"]);
    assert_eq!(checked("internal_listen", &open, &[("ROOMCAST_API_KEY", "s3cret-0123456789")]).0, "0.0.0.0:0");
    for loopback in ["127.0.0.2:3001", "[::1]:3001", "off"] {
        assert_eq!(checked("internal_listen", &["--internal-listen", loopback], &[]).0, loopback);
    }
}

#[test]
fn an_option_has_up_to_eight_keys_of_at_least_16_characters() {
    let key = "s3cret-012345678";
    for name in ["api_key", "api_publish_key", "api_read_key"] {
        let (flag, accepted) = (format!("--{}", name.replace('_', "-")), [key; 8].join(","));
        assert_eq!(checked(name, &[&flag, &accepted], &[]).0, "(hidden)");
        for refused in [&key[1..], &format!("{key},"), &format!("{key}, {key}"), &[key; 9].join(","), ""] {
            let expected = [&*flag, "(hidden)", "at least 16 printable ASCII characters", "at most 8, with commas"];
            assert_refused(&[&flag, refused], &[], &expected);
        }
    }
}

#[test]
fn the_key_is_never_printed() {
    let file = write_file("key.toml", "api_key = \"s3cret-0123456789\"\n");
    let source = format!("{file}:1");
    assert_eq!(checked("api_key", &[], &[]), pair("off", "default"));
    assert_eq!(
        checked("api_key", &[], &[("ROOMCAST_API_KEY", "s3cret-0123456789")]),
        pair("(hidden)", "ROOMCAST_API_KEY")
    );
    assert_eq!(checked("api_key", &["--config", &file], &[]), pair("(hidden)", &source));
    let error = error_of(&run(&["serve"], &[("ROOMCAST_API_KEY", "s3cret-0123456789 with spaces")]), EXIT_USAGE);
    assert!(error.contains("ROOMCAST_API_KEY") && error.contains("without spaces"), "{error}");
    assert!(!error.contains("s3cret-0123456789"), "{error}");
}

// === what is bound when ===

fn taken_port() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    (listener, address)
}

#[test]
fn a_node_whose_port_is_taken_ends_with_a_message_that_names_the_option_and_the_address() {
    let (_listener, address) = taken_port();
    for option in ["--listen", "--internal-listen"] {
        let mut arguments = vec!["serve", "--listen=127.0.0.1:0", "--internal-listen=off"];
        arguments.retain(|argument| !argument.starts_with(&format!("{option}=")));
        let error = error_of(&run(&[&arguments[..], &[option, &address]].concat(), &[]), EXIT_FAILURE);
        for part in [option, address.as_str(), "in use"] {
            assert!(error.contains(part), "{part:?} is not in: {error}");
        }
    }
}

#[test]
fn nothing_is_bound_before_the_whole_configuration_is_known_to_be_right() {
    // Had it bound anything, it would speak of these ports.
    let (_listener, address) = taken_port();
    let listen = [format!("--listen={address}"), format!("--internal-listen={address}")];
    let file = write_file("late-error.toml", "log_format = \"xml\"\n");
    for (arguments, variables) in [
        (&["--log-format=xml"][..], &[][..]),
        (&[], &[("ROOMCAST_LOG_FORMAT", "xml")]),
        (&["--config", &file], &[]),
        (&["--drain-timeout=1s"], &[]),
    ] {
        let arguments = [&["serve", &listen[0], &listen[1]], arguments].concat();
        let error = error_of(&run(&arguments, variables), EXIT_USAGE);
        assert!(!error.contains(&address), "{error}");
    }
}

#[test]
fn a_cluster_secret_is_long_enough_and_not_printed() {
    let (good, renewed) = ("0123456789abcdef", "0123456789abcdef,fedcba9876543210");
    for secret in [good, renewed] {
        assert_eq!(
            checked("cluster_secret", &["--redis", "off"], &[("ROOMCAST_CLUSTER_SECRET", secret)]).0,
            "(hidden)"
        );
    }
    for bad in ["short-and-sweet", "0123456789abcdef,", "0123456789abcdef,short", "0123456789 abcdef"] {
        let with_redis = ["check", "--redis", "redis://127.0.0.1:1"];
        let error = error_of(&run(&with_redis, &[("ROOMCAST_CLUSTER_SECRET", bad)]), EXIT_USAGE);
        assert!(error.contains("ROOMCAST_CLUSTER_SECRET") && error.contains("at least 16"), "{error}");
        assert!(!error.contains(bad), "{error}");
    }
}
