use serde_json::{Value, json};

use super::*;

fn object(name: &str, spec: &Value) -> Told {
    let object = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "shop", "managedFields": [{"manager": "x"}]},
        "spec": spec, "status": {"loadBalancer": {}},
    });
    told(serde_json::from_value(object).unwrap()).unwrap()
}

fn web(port: u16) -> Value {
    json!({"selector": {"app": "web"}, "clusterIP": "10.0.0.1", "ports": [{"port": port, "name": "http"}]})
}

#[test]
fn of_a_service_its_selector_and_tcp_ports_are_kept() {
    let spec = json!({
        "selector": {"app": "web"},
        "ports": [
            {"port": 80, "name": "http", "targetPort": "named", "protocol": "TCP"},
            {"port": 53, "name": "dns", "protocol": "UDP"},
            {"port": 81, "targetPort": 8081, "appProtocol": "kubernetes.io/h2c"},
            {"port": 82, "appProtocol": ""},
        ],
    });
    let service = object("web", &spec).service.unwrap();
    let port = |target, name: &str, app: Option<&str>| ServicePort {
        target,
        name: name.into(),
        app_protocol: app.map(str::to_owned),
    };
    assert_eq!(
        service.ports,
        [
            port(Target::Name("named".into()), "http", None),
            port(Target::Number(8081), "", Some("kubernetes.io/h2c")),
            port(Target::Number(82), "", None),
        ]
    );
    for selects_nothing in [
        json!({"ports": [{"port": 80}]}),
        json!({"selector": {}, "ports": [{"port": 80}]}),
        json!({"type": "ExternalName", "selector": {"a": "b"}, "externalName": "x", "ports": [{"port": 80}]}),
        json!({"selector": {"a": "b"}}),
    ] {
        assert!(
            object("x", &selects_nothing).service.is_none(),
            "{selects_nothing}"
        );
    }
}

#[test]
fn services_come_change_and_go_and_a_list_replaces_all() {
    let mut all = Services::default();
    assert_eq!(all.apply(Event::Applied(object("web", &web(80))), 9), (true, 0));
    assert_eq!(all.apply(Event::Applied(object("web", &web(80))), 9), (false, 0));
    assert_eq!(all.apply(Event::Applied(object("web", &web(81))), 9), (true, 0));
    assert_eq!(
        all.space("shop").unwrap()["web"].ports[0].target,
        Target::Number(81)
    );
    let before = Arc::clone(all.space("shop").unwrap());
    assert_eq!(
        all.apply(Event::Listed(vec![object("web", &web(81))]), 9),
        (false, 0)
    );
    assert!(Arc::ptr_eq(&before, all.space("shop").unwrap()));
    // One that selects nothing any more is gone as one that was deleted.
    assert_eq!(all.apply(Event::Applied(object("web", &json!({}))), 9), (true, 0));
    assert!(all.is_empty() && all.space("shop").is_none());
    all.apply(Event::Applied(object("web", &web(80))), 9);
    assert_eq!(
        all.apply(Event::Deleted("shop".into(), "web".into()), 9),
        (true, 0)
    );
    assert_eq!(
        all.apply(Event::Deleted("shop".into(), "web".into()), 9),
        (false, 0)
    );
    assert_eq!(all.len(), 0);
}

#[test]
fn a_service_that_is_left_out_takes_nothing_from_those_that_are_known() {
    let mut all = Services::default();
    let names = |all: &Services| all.space("shop").unwrap().keys().cloned().collect::<Vec<_>>();
    all.apply(Event::Applied(object("b", &web(80))), 1);
    assert_eq!(all.apply(Event::Applied(object("a", &web(81))), 1), (false, 1));
    assert_eq!(names(&all), ["b"]);
    // Who was there before stays there, wherever it is in the list.
    let both = vec![object("a", &web(81)), object("b", &web(82))];
    assert_eq!(all.apply(Event::Listed(both), 1), (true, 1));
    assert_eq!(names(&all), ["b"]);
    assert_eq!(
        all.space("shop").unwrap()["b"].ports[0].target,
        Target::Number(82)
    );
    // A list that shows room.
    assert_eq!(
        all.apply(Event::Listed(vec![object("a", &web(81))]), 1),
        (true, 0)
    );
    assert_eq!(names(&all), ["a"]);
}

#[test]
fn a_service_with_too_many_ports_counts_as_it_was_known_before_and_else_not_at_all() {
    let ports: Vec<Value> = (1..=MAX_PORTS + 1)
        .map(|port| json!({"port": port, "name": format!("tcp-{port}")}))
        .collect();
    let wide = json!({"selector": {"app": "web"}, "ports": ports});
    let mut all = Services::default();
    all.apply(Event::Applied(object("a", &web(80))), 9);
    let before = Arc::clone(all.space("shop").unwrap());
    for event in [
        Event::Applied(object("a", &wide)),
        Event::Listed(vec![object("a", &wide)]),
        Event::Applied(object("new", &wide)),
    ] {
        assert_eq!(all.apply(event, 9), (false, 1));
        assert!(Arc::ptr_eq(&before, all.space("shop").unwrap()));
    }
    assert_eq!(all.len(), 1);
    assert_eq!(all.apply(Event::Deleted("shop".into(), "a".into()), 9), (true, 0));
    assert!(all.space("shop").is_none());
}
