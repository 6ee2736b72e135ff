use super::*;

fn lines(text: &str) -> Vec<u64> {
    documents(text).iter().map(|(line, _)| *line).collect()
}

#[test]
fn documents_are_split_at_marker_lines_only() {
    assert_eq!(lines("a: 1\n---\nb: 2\n--- # more\nc: 3\n"), [1, 2, 4]);
    assert_eq!(lines("---\na: 1\n"), [1]);
    assert_eq!(lines("a: |\n  ---\n ---\n---x\n"), [1]);
    assert_eq!(lines("\n# only this\n---\n---\n...\n"), Vec::<u64>::new());
    assert_eq!(lines("# c\n---\na: 1\r\n---\r\nb: 1"), [2, 4]);
    assert_eq!(lines(""), Vec::<u64>::new());
}

#[test]
fn a_kind_of_ours_in_another_group_is_a_fault_and_other_kinds_are_not_ours() {
    let content = |text: &str| read_text("f", text, None).remove(0).content;
    assert!(matches!(
        content("{apiVersion: security.istio.oi/v1, kind: AuthorizationPolicy}"),
        Content::Faulty(_)
    ));
    assert!(matches!(
        content("{apiVersion: networking.istio.io/v1, kind: Gateway}"),
        Content::Foreign(_)
    ));
    assert!(matches!(content("{replicas: 3}"), Content::Foreign(_)));
    assert!(matches!(
        content("{kind: AuthorizationPolicy}"),
        Content::Faulty(_)
    ));
    assert!(matches!(content("[1, 2]"), Content::Faulty(_)));
    assert!(matches!(content("just text"), Content::Faulty(_)));
}

#[test]
fn deep_and_repeating_documents_are_refused_in_time() {
    let deep = format!("{}1{}", "[".repeat(2000), "]".repeat(2000));
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\n\
                d: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e]\n\
                g: [*f,*f,*f,*f,*f,*f,*f,*f]\nkind: AuthorizationPolicy\n";
    for text in [deep.as_str(), bomb] {
        assert!(matches!(
            read_text("f", text, None).remove(0).content,
            Content::Faulty(_)
        ));
    }
}

#[test]
fn an_object_passed_on_as_json_says_the_same() {
    let text = "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
                metadata: {name: a, namespace: b, generation: 3, creationTimestamp: null}\n\
                spec: {selector: {matchLabels: {app: 'true'}}, portLevelMtls: {8080: {mode: DISABLE}}}\n\
                ---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                metadata: {name: a, namespace: b}\nspec: {action: DENY, rules: [{to: [{operation: {ports: [80]}}]}]}\n";
    let readings = read_text_as_json("f", text);
    assert_eq!(readings.len(), 2);
    for (reading, json) in readings {
        let again = crate::read_object("f", &json.unwrap()).content;
        match (reading.content, again) {
            (Content::Sound(one), Content::Sound(other)) => assert_eq!(one, other),
            (Content::Faulty(one), Content::Faulty(other)) => {
                let problems = |f: &Faulty| f.faults.iter().map(|f| f.problem.clone()).collect::<Vec<_>>();
                assert_eq!(problems(&one), problems(&other));
            }
            other => panic!("{other:?}"),
        }
    }
    let (broken, json) = read_text_as_json("f", "{").remove(0);
    assert!(matches!(broken.content, Content::Faulty(_)) && json.is_none());
}
