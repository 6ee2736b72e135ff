//! Pods that come and go at a steady rate, each known to nobody before and forgotten after.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior};

use crate::cluster::Cluster;
use crate::node::{self, Pod, container, running};

/// Their namespace.
pub const NAMESPACE: &str = "churn";

/// What is to come and go.
#[derive(Clone, Copy, Debug)]
pub struct Churn {
    /// Pods a second.
    pub rate: u32,
    /// For so long.
    pub time: Duration,
    /// How many live at once, once there are so many.
    pub living: usize,
    /// How many accounts they are of, one after the other.
    pub accounts: u32,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Churned {
    /// Pods made, and deleted as well.
    pub pods: u32,
    /// How long it took.
    pub took: Duration,
}

impl Churn {
    /// The service account of the pod of this number.
    #[must_use]
    pub fn account(&self, number: u32) -> String {
        format!("account-{}", number % self.accounts)
    }

    /// Makes namespace and accounts.
    pub fn prepare(&self, cluster: &Cluster) {
        for number in 0..self.accounts {
            node::account(cluster, (NAMESPACE, &self.account(number)));
        }
    }

    /// Makes and deletes pods, and none is left at the end. `each` is shown every pod just made with its
    /// number, and must not take long; a pod it keeps is deleted like all others.
    ///
    /// # Panics
    /// When the cluster refuses.
    pub async fn run(&self, cluster: &Cluster, mut each: impl FnMut(u32, &Pod)) -> Churned {
        let began = Instant::now();
        let mut living = VecDeque::new();
        let mut tick = tokio::time::interval(Duration::from_secs(1) / self.rate);
        // A slow moment is made up for, so that the rate holds.
        tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let pods = u32::try_from(self.time.as_millis()).unwrap_or(u32::MAX) / 1_000 * self.rate;
        for number in 0..pods {
            tick.tick().await;
            let name = format!("pod-{number}");
            let account = self.account(number);
            let containers = json!([running("main", &container())]);
            let pod = node::pod(cluster, (NAMESPACE, &account), &name, &containers);
            each(number, &pod);
            living.push_back(pod);
            if living.len() > self.living {
                delete(cluster, living.pop_front());
            }
        }
        for pod in living {
            tick.tick().await;
            delete(cluster, Some(pod));
        }
        Churned {
            pods,
            took: began.elapsed(),
        }
    }
}

fn delete(cluster: &Cluster, pod: Option<Pod>) {
    if let Some(pod) = pod {
        cluster
            .api
            .delete_pod(&pod.namespace, &pod.name)
            .expect("deleted");
    }
}
