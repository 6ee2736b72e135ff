use proptest::prelude::*;

use super::*;

/// Paths as they were seen in the wild: where they come from, the text, the pod, the container.
const SEEN: [(&str, &str, &str, &str); 16] = [
    (
        "containerd, systemd driver, version 2 (Kubernetes, review of the kubelet's statistics from the CRI)",
        "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod2fc932ce_fdcc_454b_97bd_aadfdeb4c340.slice/cri-containerd-aaefb9d8feed2d453b543f6d928cede7a4dbefa6a0ae7c9b990dd234c56e93b9.scope\n",
        "2fc932ce-fdcc-454b-97bd-aadfdeb4c340",
        "aaefb9d8feed2d453b543f6d928cede7a4dbefa6a0ae7c9b990dd234c56e93b9",
    ),
    (
        "containerd, systemd driver, version 1, guaranteed (vcuda-controller, a report of unread paths)",
        "12:hugetlb:/kubepods.slice/kubepods-pod019c1fe8_0d92_4aa0_b61c_4df58bdde71c.slice/cri-containerd-9e073649debeec6d511391c9ec7627ee67ce3a3fb508b0fa0437a97f8e58ba98.scope\n\
         8:net_cls,net_prio:/kubepods.slice/kubepods-pod019c1fe8_0d92_4aa0_b61c_4df58bdde71c.slice/cri-containerd-9e073649debeec6d511391c9ec7627ee67ce3a3fb508b0fa0437a97f8e58ba98.scope\n\
         1:name=systemd:/kubepods.slice/kubepods-pod019c1fe8_0d92_4aa0_b61c_4df58bdde71c.slice/cri-containerd-9e073649debeec6d511391c9ec7627ee67ce3a3fb508b0fa0437a97f8e58ba98.scope\n",
        "019c1fe8-0d92-4aa0-b61c-4df58bdde71c",
        "9e073649debeec6d511391c9ec7627ee67ce3a3fb508b0fa0437a97f8e58ba98",
    ),
    (
        "containerd told to use plain cgroups below a systemd kubelet (opentelemetry-java, a report of 2022)",
        "11:perf_event:/kubepods-besteffort-pod0125ec2f_b64a_4868_8f5b_94b56cbab864.slice:cri-containerd:ee4b20e90ac7f42a10bd004d05646b13d8ab5e2c5e7cbc01abf8006bac016459\n\
         10:blkio:/system.slice/containerd.service/kubepods-besteffort-pod0125ec2f_b64a_4868_8f5b_94b56cbab864.slice:cri-containerd:ee4b20e90ac7f42a10bd004d05646b13d8ab5e2c5e7cbc01abf8006bac016459\n",
        "0125ec2f-b64a-4868-8f5b-94b56cbab864",
        "ee4b20e90ac7f42a10bd004d05646b13d8ab5e2c5e7cbc01abf8006bac016459",
    ),
    (
        "the same, one line (Elastic's agents, a specification of 2021)",
        "1:name=systemd:/system.slice/containerd.service/kubepods-burstable-podff49d0be_16b7_4a49_bb9e_8ec1f1f4e27f.slice:cri-containerd:0f99ad5f45163ed14ab8eaf92ed34bb4a631d007f8755a7d79be614bcb0df0ef\n",
        "ff49d0be-16b7-4a49-bb9e-8ec1f1f4e27f",
        "0f99ad5f45163ed14ab8eaf92ed34bb4a631d007f8755a7d79be614bcb0df0ef",
    ),
    (
        "CRI-O, systemd driver (kubectl-trace, a report of 2021)",
        "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod30cea2cf_1b80_4807_abad_d81453e199c5.slice/crio-a8077b08a56c0c6e33d6716557d882ac940cb09475c50372e22e84c40d0733f2.scope\n",
        "30cea2cf-1b80-4807-abad-d81453e199c5",
        "a8077b08a56c0c6e33d6716557d882ac940cb09475c50372e22e84c40d0733f2",
    ),
    (
        "CRI-O, systemd driver, version 1, some controllers not used (runc, a report of 2025)",
        "13:freezer:/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-poda5c1f8d5_1919_434d_add7_4afaafdaef89.slice/crio-5eed917563583925ffdbd40a64efb2aaffe58638e57add8becaf460fe74f5b1c.scope\n\
         11:files:/\n\
         10:hugetlb:/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-poda5c1f8d5_1919_434d_add7_4afaafdaef89.slice/crio-5eed917563583925ffdbd40a64efb2aaffe58638e57add8becaf460fe74f5b1c.scope\n",
        "a5c1f8d5-1919-434d-add7-4afaafdaef89",
        "5eed917563583925ffdbd40a64efb2aaffe58638e57add8becaf460fe74f5b1c",
    ),
    (
        "CRI-O with crun, which puts the container one level deeper (MicroShift 4.21)",
        "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod73dc8baf_43a0_413e_aac2_5eb0868f6c1a.slice/crio-f52987fbdcc7b29175fb52e01c7917e9d6d2e14550e3a2a7abf739da5a067e31.scope/container\n",
        "73dc8baf-43a0-413e-aac2-5eb0868f6c1a",
        "f52987fbdcc7b29175fb52e01c7917e9d6d2e14550e3a2a7abf739da5a067e31",
    ),
    (
        "CRI-O, plain cgroups, from its naming of cgroups",
        "0::/kubepods/burstable/pod4a163a05-439d-484b-8e53-2968bc15824f/crio-cde6dfaf5007ed65aad2d6aed72af91b0f3d95813492f773286e29ae145d20f4\n",
        "4a163a05-439d-484b-8e53-2968bc15824f",
        "cde6dfaf5007ed65aad2d6aed72af91b0f3d95813492f773286e29ae145d20f4",
    ),
    (
        "Docker, plain cgroups, version 1 (traceloop's list of 2020)",
        "1:name=systemd:/kubepods/besteffort/pod91a8fc3a-0ecf-48b4-81bf-78a7275d348c/f75aff467357c5d0ddd47cb7ad87ed38746e018992586ff66198a5c11218f634\n0::/\n",
        "91a8fc3a-0ecf-48b4-81bf-78a7275d348c",
        "f75aff467357c5d0ddd47cb7ad87ed38746e018992586ff66198a5c11218f634",
    ),
    (
        "Docker, systemd driver (traceloop's list of 2020)",
        "1:name=systemd:/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod5759a1ae_36ca_48a8_b20a_b0b5c8a90fb8.slice/docker-c8b38413c88eefe063b8cd3f01c16be5e3bda9693a19a68a88807baca9feb937.scope\n",
        "5759a1ae-36ca-48a8-b20a-b0b5c8a90fb8",
        "c8b38413c88eefe063b8cd3f01c16be5e3bda9693a19a68a88807baca9feb937",
    ),
    (
        "Docker, version 2, seen from another pod of the same class (NeuVector, Ubuntu 21.10)",
        "0::/../../kubepods-besteffort-podfd698699_eabf_4c23_92ef_cf0bbdb78261.slice/docker-2cc65c162ca1388b6b8d5ccfb701d22fc96675ccf8b2f1590c490c2c4039547f.scope\n",
        "fd698699-eabf-4c23-92ef-cf0bbdb78261",
        "2cc65c162ca1388b6b8d5ccfb701d22fc96675ccf8b2f1590c490c2c4039547f",
    ),
    (
        "plain cgroups, seen from another pod of the same class (SPIRE's list)",
        "0::/../../pod2c48913c-b29f-11e7-9350-020968147796/9bca8d63d5fa610783847915bcff0ecac1273e5b4bed3f6fa1b07350e0135961\n",
        "2c48913c-b29f-11e7-9350-020968147796",
        "9bca8d63d5fa610783847915bcff0ecac1273e5b4bed3f6fa1b07350e0135961",
    ),
    (
        "kind, seen from a pod of another class",
        "0::/../../../kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-podc5497c64_1dfa_4501_8a37_0ba1c309829c.slice/cri-containerd-5dda869170205a9ac36dc25615ead3a914072192c76a8cdf53ebc21ae7b16f0e.scope\n",
        "c5497c64-1dfa-4501-8a37-0ba1c309829c",
        "5dda869170205a9ac36dc25615ead3a914072192c76a8cdf53ebc21ae7b16f0e",
    ),
    (
        "kind, seen from its node (containerd's NRI, a test of 2025)",
        "0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod1e597579_417e_482f_bf65_5fe170c3aebd.slice/cri-containerd-a09bc17f5aa29b0dbdec9ede5f46cf1396d2405917ab02e6f1eb1019f388396e.scope\n",
        "1e597579-417e-482f-bf65-5fe170c3aebd",
        "a09bc17f5aa29b0dbdec9ede5f46cf1396d2405917ab02e6f1eb1019f388396e",
    ),
    (
        "a container that runs systemd and sorts its own processes",
        "0::/kubepods.slice/kubepods-pod2d51509a_fcf0_41cc_b535_57cfeeaf73d1.slice/cri-containerd-0853fad78812e955b92d871d8d597d9bc598e34320c9edbfab0a73eacf150145.scope/system.slice/nginx.service\n",
        "2d51509a-fcf0-41cc-b535-57cfeeaf73d1",
        "0853fad78812e955b92d871d8d597d9bc598e34320c9edbfab0a73eacf150145",
    ),
    (
        "a slice whose uid kept its dashes (SPIRE's list)",
        "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod2c48913c-b29f-11e7-9350-020968147796.slice/docker-9bca8d63d5fa610783847915bcff0ecac1273e5b4bed3f6fa1b07350e0135961.scope\n",
        "2c48913c-b29f-11e7-9350-020968147796",
        "9bca8d63d5fa610783847915bcff0ecac1273e5b4bed3f6fa1b07350e0135961",
    ),
];

#[test]
fn every_path_seen_in_the_wild_names_its_pod_and_container() {
    for (origin, text, pod, id) in SEEN {
        let found = parse(text.as_bytes())
            .unwrap_or_else(|e| panic!("{origin}: {e}"))
            .unwrap();
        assert_eq!(
            (found.pod.to_string(), found.id.to_string()),
            (pod.into(), id.into()),
            "{origin}"
        );
    }
}

const POD_A: &str = "2fc932ce-fdcc-454b-97bd-aadfdeb4c340";
const POD_B: &str = "019c1fe8-0d92-4aa0-b61c-4df58bdde71c";
const ID_A: &str = "aaefb9d8feed2d453b543f6d928cede7a4dbefa6a0ae7c9b990dd234c56e93b9";
const ID_B: &str = "9e073649debeec6d511391c9ec7627ee67ce3a3fb508b0fa0437a97f8e58ba98";

fn reason(text: &str) -> &'static str {
    parse(text.as_bytes()).unwrap_err().reason()
}

#[test]
fn processes_outside_any_pod_have_none() {
    for text in [
        "0::/\n",
        "0::/init.scope\n",
        "0::/system.slice/sshd.service\n",
        "0::/user.slice/user-1000.slice/session-3.scope\n",
        "0::/../../../../system.slice/kubelet.service\n",
        // Docker beside Kubernetes, and our own pod seen from inside.
        &format!("0::/docker/{ID_A}\n"),
        &format!("0::/system.slice/docker-{ID_A}.scope\n"),
        &format!("0::/../crio-{ID_A}.scope\n"),
        "12:cpu,cpuacct:/\n1:name=systemd:/\n0::/system.slice/containerd.service\n",
    ] {
        assert_eq!(parse(text.as_bytes()), Ok(None), "{text}");
    }
}

#[test]
fn a_second_pod_or_container_in_a_line_or_file_is_refused() {
    for text in [
        // A container that makes cgroups named as its neighbour's.
        format!("0::/kubepods/pod{POD_A}/{ID_A}/kubepods/pod{POD_B}/{ID_B}\n"),
        format!("0::/kubepods/pod{POD_A}/{ID_A}/pod{POD_B}\n"),
        format!("0::/kubepods/pod{POD_A}/{ID_A}/{ID_B}\n"),
        format!("0::/kubepods/pod{POD_A}/{ID_A}/docker/{ID_B}\n"),
        // A container outside any pod that does so; a node that is itself a container looks the same.
        format!("0::/docker/{ID_B}/kubepods/besteffort/pod{POD_A}/{ID_A}\n"),
        format!("0::/machine.slice/libpod-{ID_B}.scope/container/kubelet/pod{POD_A}/{ID_A}\n"),
        format!("2:cpu:/kubepods/pod{POD_A}/{ID_A}\n1:name=systemd:/kubepods/pod{POD_B}/{ID_A}\n"),
        format!("2:cpu:/kubepods/pod{POD_A}/{ID_A}\n1:name=systemd:/kubepods/pod{POD_A}/{ID_B}\n"),
    ] {
        assert_eq!(reason(&text), "cgroup_ambiguous", "{text}");
    }
}

#[test]
fn the_same_pod_and_container_twice_are_one() {
    let text = format!("0::/kubepods/pod{POD_A}/{ID_A}/pod{POD_A}/{ID_A}\n");
    assert!(parse(text.as_bytes()).unwrap().is_some());
}

#[test]
fn a_helper_beside_the_containers_is_none_of_them() {
    for text in [
        format!("0::/kubepods/burstable/pod{POD_A}\n"),
        format!("0::/kubepods/burstable/pod{POD_A}/crio-conmon-{ID_A}\n"),
        format!(
            "0::/kubepods.slice/kubepods-pod{}.slice/crio-conmon-{ID_A}.scope\n",
            POD_A.replace('-', "_")
        ),
        // Not directly below the pod: somebody's own making.
        format!("0::/kubepods/burstable/pod{POD_A}/else/{ID_A}\n"),
        format!("0::/kubepods/burstable/pod{POD_A}/{} (deleted)\n", ID_A),
    ] {
        assert_eq!(reason(&text), "no_container", "{text}");
    }
}

#[test]
fn a_users_session_cannot_look_like_a_pod() {
    for text in [
        format!("0::/user.slice/user-1000.slice/user@1000.service/kubepods/pod{POD_A}/{ID_A}\n"),
        format!("0::/../../../../user.slice/user-1000.slice/user@1000.service/pod{POD_A}/{ID_A}\n"),
    ] {
        assert_eq!(reason(&text), "cgroup_delegated", "{text}");
    }
}

#[test]
fn a_static_pod_is_told_apart() {
    // Its uid in paths is a hash of its file, without separators.
    let text = format!("0::/kubepods/podb53dfa9e2dc9b890f7fadb2770857b03/crio-{ID_A}\n");
    assert_eq!(reason(&text), "static_pod");
    let text = format!(
        "0::/kubepods.slice/kubepods-burstable-podd8992f589d8dd12c4342376ccb459375.slice/cri-containerd-{ID_A}.scope\n"
    );
    assert_eq!(reason(&text), "static_pod");
}

#[test]
fn what_is_no_list_of_cgroups_is_refused() {
    for text in [
        "",
        "\n",
        "0:/\n",
        "x::/\n",
        "0::\n",
        "0::relative\n",
        "0::/\n\n0::/\n",
        "0::/a/../b\n",
        &format!("0::/kubepods/pod{POD_A}/{ID_A}/..\n"),
    ] {
        assert_eq!(reason(text), "cgroup_malformed", "{text:?}");
    }
    assert_eq!(parse(b"0::/\xff\n"), Err(CgroupError::Malformed { line: 1 }));
    assert_eq!(parse(&vec![b'a'; MAX_TEXT + 1]), Err(CgroupError::TooLong));
}

#[test]
fn names_that_are_nearly_right_are_other_names() {
    for name in [
        format!("xpod{POD_A}"),
        format!("pod{}", POD_A.to_uppercase()),
        format!("pod{POD_A}0"),
        format!("pod{}", POD_A.replace('-', "_")),
    ] {
        assert_eq!(
            parse(format!("0::/kubepods/{name}/{ID_A}\n").as_bytes()),
            Ok(None),
            "{name}"
        );
    }
}

proptest! {
    #[test]
    fn any_bytes_end_well(text in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = parse(&text);
    }

    #[test]
    fn what_a_runtime_names_is_found(
        pod in any::<u128>(), id in any::<[u128; 2]>(), shape in 0usize..6, up in 0usize..5, below in "(/[a-z.]{1,12}){0,3}",
    ) {
        let (pod, id) = (PodUid(pod), ContainerId(id));
        let under = pod.to_string().replace('-', "_");
        let tail = match shape {
            0 => format!("/kubepods/burstable/pod{pod}/{id}"),
            1 => format!("/pod{pod}/crio-{id}"),
            2 => format!("/kubepods.slice/kubepods-pod{under}.slice/cri-containerd-{id}.scope"),
            3 => format!("/kubepods-besteffort-pod{under}.slice/docker-{id}.scope"),
            4 => format!("/kubelet-kubepods-burstable-pod{under}.slice/crio-{id}.scope"),
            _ => format!("/kubepods-burstable-pod{under}.slice:cri-containerd:{id}"),
        };
        let text = format!("0::{}{tail}{below}\n", "/..".repeat(up));
        prop_assume!(!below.contains("/..") );
        prop_assert_eq!(parse(text.as_bytes()), Ok(Some(Container { pod, id })));
    }

    #[test]
    fn nothing_below_a_container_changes_whose_it_is(below in "[a-z0-9:/._-]{0,200}") {
        let text = format!("0::/kubepods/pod{POD_A}/{ID_A}/{below}\n");
        if let Ok(found) = parse(text.as_bytes()) {
            let found = found.expect("a container");
            prop_assert_eq!(found.pod.to_string(), POD_A);
            prop_assert_eq!(found.id.to_string(), ID_A);
        }
    }

    #[test]
    fn ids_come_out_as_they_went_in(pod in any::<u128>(), id in any::<[u128; 2]>()) {
        prop_assert_eq!(PodUid::parse(&PodUid(pod).to_string()), Some(PodUid(pod)));
        prop_assert_eq!(ContainerId::parse(&ContainerId(id).to_string()), Some(ContainerId(id)));
    }
}
