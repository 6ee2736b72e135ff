//! Under which names the metrics are registered.

use prometheus_client::registry::Registry;

use super::Metrics;

impl Metrics {
    /// All of them.
    pub(super) fn register(&self, r: &mut Registry) {
        self.register_svids(r);
        self.register_bundles(r);
        self.register_streams(r);
        self.register_local(r);
        self.register_attestation(r);
        self.register_policies(r);
    }

    /// SVIDs, and what the CA is asked for.
    fn register_svids(&self, r: &mut Registry) {
        r.register(
            "svid_not_after_timestamp_seconds",
            "End of the SVID served",
            self.svid_not_after.clone(),
        );
        r.register(
            "svid_last_success_timestamp_seconds",
            "When the last SVID came",
            self.svid_last_success.clone(),
        );
        r.register(
            "svid_renews_at_timestamp_seconds",
            "When the next attempt is due",
            self.svid_renews_at.clone(),
        );
        r.register(
            "svid_next_renewal_seconds",
            "Seconds until the next attempt",
            self.svid_next_renewal.clone(),
        );
        r.register("svids_issued", "SVIDs put in use", self.svid_issued.clone());
        r.register(
            "svid_renewal_failures",
            "Renewals that failed, by reason",
            self.svid_failures.clone(),
        );
        r.register(
            "svids_withdrawn",
            "Times a served SVID went out of service",
            self.svid_withdrawn.clone(),
        );
        r.register(
            "svids_dropped",
            "SVIDs dropped because no workload of theirs is left",
            self.svids_dropped.clone(),
        );
        r.register(
            "identities",
            "Identities in use on this node, by state",
            self.identities.clone(),
        );
        r.register(
            "ca_requests_in_flight",
            "Requests for SVIDs under way",
            self.ca_requests_in_flight.clone(),
        );
        r.register(
            "ca_requests_queued",
            "Requests for SVIDs that wait for their turn",
            self.ca_requests_queued.clone(),
        );
    }

    /// Bundles.
    fn register_bundles(&self, r: &mut Registry) {
        r.register(
            "bundle_sequence",
            "Sequence of the bundle served",
            self.bundle_sequence.clone(),
        );
        r.register(
            "bundles",
            "Bundles received, by what was done with them",
            self.bundles.clone(),
        );
        r.register(
            "foreign_bundles",
            "Bundles of other trust domains received, by what was done with them",
            self.foreign_bundles.clone(),
        );
        r.register(
            "federated_domains",
            "Trust domains federated with",
            self.federated_domains.clone(),
        );
        r.register(
            "bundle_watch_failures",
            "Failures of the bundle watch",
            self.bundle_watch_failures.clone(),
        );
        r.register(
            "ca_connections_left",
            "Connections to the CA left for another because it kept failing",
            self.ca_connections_left.clone(),
        );
        r.register(
            "answer_roots",
            "Roots in answers, compared with the bundle",
            self.answer_roots.clone(),
        );
        r.register(
            "root_file_readings",
            "Readings of the root file",
            self.root_file.clone(),
        );
    }

    /// What workloads are served.
    fn register_streams(&self, r: &mut Registry) {
        r.register(
            "workload_connections",
            "Connections of workloads, by outcome",
            self.connections.clone(),
        );
        r.register(
            "workload_connections_open",
            "Connections of workloads open",
            self.connections_open.clone(),
        );
        r.register(
            "calls_turned_away",
            "Calls on the workload socket turned away because too many were under way",
            self.calls_turned_away.clone(),
        );
        r.register(
            "call_message_bytes",
            "Bytes that messages of calls on the workload socket hold",
            self.message_bytes.clone(),
        );
        r.register(
            "messages_turned_away",
            "Calls on the workload socket ended because messages hold as much as they may",
            self.messages_turned_away.clone(),
        );
        r.register("sds_streams", "SDS streams open", self.streams.clone());
        r.register("sds_pushes", "SDS responses sent", self.sds_pushes.clone());
        r.register("sds_answers", "Answers of SDS clients", self.sds_answers.clone());
        r.register(
            "sds_refusals",
            "SDS names and streams refused, by reason",
            self.sds_refusals.clone(),
        );
        r.register(
            "workload_api_streams",
            "Workload API streams open",
            self.workload_streams.clone(),
        );
        r.register(
            "workload_api_messages",
            "Workload API messages sent",
            self.workload_messages.clone(),
        );
        r.register(
            "workload_api_refusals",
            "Workload API calls refused, by reason",
            self.workload_refusals.clone(),
        );
        r.register(
            "jwt_cache",
            "Tokens asked of the cache, by outcome",
            self.jwt_cache.clone(),
        );
    }

    /// Files, and the admin socket.
    fn register_local(&self, r: &mut Registry) {
        r.register(
            "output_writes",
            "Writes of the output files",
            self.output_writes.clone(),
        );
        r.register(
            "output_hooks",
            "Hooks run after a change of the files",
            self.output_hooks.clone(),
        );
        r.register(
            "admin_connections",
            "Connections to the admin socket",
            self.admin_connections.clone(),
        );
    }

    /// Who workloads are.
    fn register_attestation(&self, r: &mut Registry) {
        r.register(
            "attestations",
            "Attestations of peers, by outcome",
            self.attestations.clone(),
        );
        r.register(
            "attestation_ends",
            "Attested workloads that are none any more",
            self.attestation_ends.clone(),
        );
        r.register("pods", "Pods of this node", self.pods.clone());
        r.register(
            "pod_events",
            "Events of the pod watch, by outcome",
            self.pod_events.clone(),
        );
        r.register(
            "pod_last_event_timestamp_seconds",
            "When the last event of the pod watch came",
            self.pod_last_event.clone(),
        );
        r.register(
            "pod_watch_failures",
            "Failures of the pod watch, by reason",
            self.pod_watch_failures.clone(),
        );
    }

    /// Policies, and keys and services that they need.
    fn register_policies(&self, r: &mut Registry) {
        r.register(
            "policies",
            "Policies known, by what is in force of them",
            self.policies.clone(),
        );
        r.register(
            "policies_changed_timestamp_seconds",
            "When the policies known changed last",
            self.policies_changed.clone(),
        );
        r.register(
            "policy_events",
            "Events of the sources of policies, by outcome",
            self.policy_events.clone(),
        );
        r.register(
            "policy_watch_failures",
            "Failures of the sources of policies, by reason",
            self.policy_watch_failures.clone(),
        );
        r.register(
            "services",
            "Services known, which tell the protocols of ports",
            self.services.clone(),
        );
        r.register(
            "key_fetches",
            "Fetches of key sets of token issuers, by outcome",
            self.key_fetches.clone(),
        );
        r.register(
            "key_refreshes",
            "Calls of proxies that miss a key of an issuer, by outcome",
            self.key_refreshes.clone(),
        );
        r.register(
            "policy_streams",
            "Policy streams open",
            self.policy_streams.clone(),
        );
        r.register(
            "policy_snapshots",
            "Snapshots of policies sent",
            self.policy_snapshots.clone(),
        );
        r.register(
            "policy_answers",
            "Answers of proxies to snapshots",
            self.policy_answers.clone(),
        );
        r.register(
            "policy_refusals",
            "Policy streams refused or ended, by reason",
            self.policy_refusals.clone(),
        );
    }
}
