//! Defaults, faults and printing.

use super::*;
use signet_runtime::config::from_text;

fn faults(yaml: &str) -> Vec<String> {
    from_text::<Raw>(yaml)
        .and_then(Config::check)
        .map(|_| ())
        .unwrap_err()
        .faults
}

#[test]
fn an_empty_file_is_a_whole_configuration() {
    let config = Config::check(from_text("").unwrap()).unwrap();
    assert_eq!(config.ca.address(), "signet-ca.signet-system.svc:15012");
    assert_eq!(config.ca.server_name.to_str(), "signet-ca.signet-system.svc");
    assert_eq!(config.workload.mode, 0o660);
    assert_eq!(config.workload.allowed_uids, [signet_runtime::socket::own_uid()]);
    assert_eq!(config.svid_ttl, Duration::from_secs(86_400));
    assert!(config.output.is_none());
}

#[test]
fn what_is_printed_is_read_back_as_the_same() {
    let yaml = "ca_address: '[::1]:15012'\noutput: {directory: /out, on_change: [reload, --now]}\n";
    let config = Config::check(from_text(yaml).unwrap()).unwrap();
    let printed = config.print().unwrap();
    let again = Config::check(from_text(&printed).unwrap()).unwrap();
    assert_eq!(again.print().unwrap(), printed);
    assert_eq!(again.output, config.output);
    assert_eq!(again.ca.host, "::1");
}

#[test]
fn every_fault_is_told_at_once_and_says_what_would_be_right() {
    let yaml = "trust_domain: Bad.Domain\nca_address: nowhere\nsocket_mode: rw\nsvid_ttl: 1s\n\
                metrics_listen: everywhere\nlog_format: xml\nadmin_socket: /run/signet/workload/a.sock\n\
                ca_deadline: 1h\noutput: {directory: out, on_change: []}\n";
    let faults = faults(yaml);
    for wanted in [
        "trust_domain: \"Bad.Domain\": trust domain may hold only a-z, 0-9, '.', '-' and '_', not 'B'",
        "ca_address: \"nowhere\" is not host:port, as in signet-ca.signet-system.svc:15012",
        "socket_mode: \"rw\" is not an octal mode that lets the owner read and write, as in \"0660\"",
        "svid_ttl: must be at least 10s",
        "log_format: \"xml\" is neither \"json\" nor \"text\"",
        "admin_socket: must not lie in /run/signet/workload, the directory of the workload socket, which is \
         mounted into pods",
        "ca_deadline: must be between 100ms and 5m",
        "output.directory: out must be an absolute path",
        "output.on_change: names no program; write it as [program, argument, …]",
    ] {
        assert!(faults.iter().any(|f| f == wanted), "{wanted}\nnot in {faults:#?}");
    }
    assert_eq!(faults.len(), 10, "{faults:#?}");
}

#[test]
fn a_hook_and_a_signal_exclude_each_other() {
    let both = "output: {directory: /o, on_change: [a], signal: {pid_file: /p, name: SIGHUP}}\n";
    assert_eq!(faults(both), ["output: has both on_change and signal; keep one"]);
    let strange = "output: {directory: /o, signal: {pid_file: /p, name: SIGKILL}}\n";
    assert_eq!(
        faults(strange),
        ["output.signal.name: \"SIGKILL\": is not one of SIGHUP, SIGUSR1, SIGUSR2"]
    );
}

#[test]
fn unknown_keys_are_refused_by_name() {
    assert!(faults("token_flie: /x\n")[0].contains("token_flie"));
}
