//! A decision allocates nothing: neither a permit, nor a denial until somebody writes it down, nor what only observes.

use allocation_counter::measure;
use serde_json::json;
use signet_policy::{Connection, Gate, Program, Request};

use crate::corpus::{FORMS, mesh, workload};
use crate::support::{Ask, ask, named, program};

fn permits(program: &Program, connection: &Connection<'_>, request: Option<&Request<'_>>) -> bool {
    match program.gate(connection, request) {
        Gate::Open(cleared) => cleared.decide(connection, request).is_ok(),
        Gate::Ask(_) | Gate::Shut(_) => false,
    }
}

/// The decision, and how often it allocated.
fn counted(program: &Program, connection: &Connection<'_>, request: Option<&Request<'_>>) -> (bool, u64) {
    let mut permitted = false;
    let allocated = measure(|| {
        permitted = permits(program, connection, request);
        std::hint::black_box(program.shadow(connection, request));
    });
    (permitted, allocated.count_total)
}

#[test]
fn a_decision_among_any_number_of_rules_allocates_nothing() {
    let seen = measure(|| drop(std::hint::black_box(vec![1_u8])));
    assert_eq!(seen.count_total, 1, "allocations are counted");
    for form in FORMS {
        for count in [10, 1_000] {
            let program = form.set(count).in_force(&workload(), &mesh()).program;
            let decide = |number| {
                form.with(number, |connection, request| {
                    counted(&program, connection, request)
                })
            };
            assert_eq!(decide(count / 2), (true, 0), "{}, {count} rules", form.name);
            // The DENY among them allows everybody else.
            let (_, allocations) = decide(2 * count + 1);
            assert_eq!(allocations, 0, "{}, {count} rules", form.name);
        }
    }
}

#[test]
fn nor_do_tokens_templates_addresses_and_headers_of_several_lines() {
    let program = program(
        &(named(
            "shop",
            "a",
            "ALLOW",
            "[{from: [{source: {requestPrincipals: ['https://idp/*'], notIpBlocks: [192.0.2.0/24], namespaces: ['w*b']}}], \
              to: [{operation: {paths: ['/a/{*}/c', '/x/{**}'], hosts: ['*.shop'], notMethods: [PUT]}}], \
              when: [{key: 'request.auth.claims[groups]', values: [ops]}, {key: 'request.headers[x-a]', values: ['1,2']}]}]",
        ) + &named(
            "shop",
            "d",
            "DENY",
            "[{when: [{key: 'request.headers[x-a]', values: [bad, '*ly']}]}]",
        ) + &named("shop", "o", "AUDIT", "[{to: [{operation: {paths: ['*/c']}}]}]")),
    );
    let good = ask()
        .path("/a/b/c")
        .header("x-a", "1")
        .header("x-a", "2")
        .claims(json!({"iss": "https://idp", "sub": "bob", "groups": ["dev", "ops"]}));
    let decide = |ask: &Ask| ask.with(|connection, request| counted(&program, connection, request));
    assert_eq!(decide(&good), (true, 0));
    assert_eq!(decide(&good.clone().header("x-a", "bad")), (false, 0));
    assert_eq!(decide(&good.path("/a/b/d")), (false, 0));
}
