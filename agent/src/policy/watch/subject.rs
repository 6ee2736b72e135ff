//! What is watched: a kind of policies, or Services.

use std::fmt::Debug;

use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use serde::de::DeserializeOwned;
use signet_policy::model::Kind;

use crate::policy::object::{self, GROUP};
use crate::policy::services::{self, ServiceObject};
use crate::policy::status::Part;
use crate::policy::store::Event;

/// What is watched.
pub trait Subject: Send + Sync + 'static {
    /// An object as it is decoded.
    type Object: kube::Resource<DynamicType = ApiResource> + Clone + Debug + DeserializeOwned + Send + 'static;
    /// What is kept of it.
    type Told: Send + Sync;
    /// Versions that are followed, the preferred one first. All show the same objects.
    const VERSIONS: &'static [&'static str];
    /// Whether the server may lack the kind.
    const MAY_BE_ABSENT: bool;

    /// What it is called in status.
    fn part(&self) -> Part;
    /// Where it is served in this version.
    fn resource(&self, version: &str) -> ApiResource;
    /// What is kept of an object; nothing for one that the API server does not have.
    fn told(&self, version: &str, object: Self::Object) -> Option<Self::Told>;
    /// These are all.
    fn listed(&self, all: Vec<Self::Told>) -> Event;
    /// One is there, or changed.
    fn applied(&self, told: Self::Told) -> Event;
    /// One is gone.
    fn deleted(&self, object: &Self::Object) -> Option<Event>;
}

impl Subject for Kind {
    type Object = DynamicObject;
    type Told = object::Told;
    const VERSIONS: &'static [&'static str] = &["v1", "v1beta1"];
    const MAY_BE_ABSENT: bool = true;

    fn part(&self) -> Part {
        Part::Kind(*self)
    }

    fn resource(&self, version: &str) -> ApiResource {
        let gvk = GroupVersionKind::gvk(GROUP, version, self.as_str());
        let plural = match self {
            Self::AuthorizationPolicy => "authorizationpolicies",
            Self::PeerAuthentication => "peerauthentications",
            Self::RequestAuthentication => "requestauthentications",
        };
        ApiResource::from_gvk_with_plural(&gvk, plural)
    }

    fn told(&self, version: &str, object: DynamicObject) -> Option<object::Told> {
        object::told(*self, version, object)
    }

    fn listed(&self, all: Vec<object::Told>) -> Event {
        Event::Listed(*self, all)
    }

    fn applied(&self, told: object::Told) -> Event {
        Event::Applied(told)
    }

    fn deleted(&self, object: &DynamicObject) -> Option<Event> {
        object::key(*self, object).map(Event::Deleted)
    }
}

/// The services of the cluster.
#[derive(Clone, Copy, Debug)]
pub struct AllServices;

impl Subject for AllServices {
    type Object = ServiceObject;
    type Told = services::Told;
    const VERSIONS: &'static [&'static str] = &["v1"];
    const MAY_BE_ABSENT: bool = false;

    fn part(&self) -> Part {
        Part::Services
    }

    fn resource(&self, version: &str) -> ApiResource {
        let gvk = GroupVersionKind::gvk("", version, "Service");
        ApiResource::from_gvk_with_plural(&gvk, "services")
    }

    fn told(&self, _version: &str, object: ServiceObject) -> Option<services::Told> {
        services::told(object)
    }

    fn listed(&self, all: Vec<services::Told>) -> Event {
        Event::Services(services::Event::Listed(all))
    }

    fn applied(&self, told: services::Told) -> Event {
        Event::Services(services::Event::Applied(told))
    }

    fn deleted(&self, object: &ServiceObject) -> Option<Event> {
        let (namespace, name) = (object.metadata.namespace.clone()?, object.metadata.name.clone()?);
        Some(Event::Services(services::Event::Deleted(namespace, name)))
    }
}
