//! A connection that is about to open: the decision whether it may, which comes before the response
//! to its request.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::ConnectInfo;
use axum::http::Extensions;
use axum::http::request::Parts;
use roomcast_core::trace;
use roomcast_core::{Identity, NewClient, Place, UserId};
use tracing::{Instrument, Span};

use crate::app::routes::Routes;
use crate::app::traces;
use crate::connection::client_info::ClientInfo;
use crate::connection::handshake::UpgradeRejection;
use crate::error::CallError;
use crate::node::addresses::AddressPlace;

/// A connection that is about to open: its request, and what the application attached to it.
#[derive(Debug)]
pub(crate) struct NewConnection {
    pub(crate) request: Parts,
    pub(crate) user: Option<UserId>,
    /// The connection's place among those of the client's address.
    pub(crate) address_place: Option<AddressPlace>,
    /// What the router's authorizer decided.
    pub(crate) identity: Option<Arc<Identity>>,
    pub(crate) extensions: Extensions,
    pub(crate) keeps_request: bool,
}

impl NewConnection {
    pub(crate) fn new(request: Parts) -> Self {
        Self {
            request,
            user: None,
            address_place: None,
            identity: None,
            extensions: Extensions::new(),
            keeps_request: false,
        }
    }

    /// Returns the client's address, if the server provides it.
    pub(crate) fn peer_addr(&self) -> Option<SocketAddr> {
        self.request.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0)
    }

    /// Decides whether the connection may open, in the span of its handshake.
    ///
    /// # Errors
    /// Returns [`NotAdmitted`] if a limit is reached, or if the authorizer refuses the client.
    pub(crate) async fn admit(mut self, routes: Arc<Routes>) -> Result<Opening, NotAdmitted> {
        let span = traces::connect(&self.request, self.peer_addr(), &routes.node.options());
        let admitted = async {
            self.take_address_place(&routes)?;
            self.authorize(&routes).instrument(span.clone()).await?;
            self.take_place(routes, span.clone())
        };
        let admitted = admitted.await;
        if let Err(refusal) = &admitted {
            traces::on_refused(&span, refusal.reason());
        }
        admitted
    }

    /// Reserves a place among the connections of the client's address. This comes before the
    /// authorizer, which may have to verify a signature.
    fn take_address_place(&mut self, routes: &Routes) -> Result<(), UpgradeRejection> {
        let place = routes.node.take_address_place(self.peer_addr());
        self.address_place = place.map_err(|refused| UpgradeRejection::TooManyFromAddress {
            limit: refused.limit_name(),
            retry_after: refused.retry_after(),
        })?;
        Ok(())
    }

    /// Has the router's authorizer decide, if the router has one.
    async fn authorize(&mut self, routes: &Routes) -> Result<(), CallError> {
        let Some(authorizer) = &routes.authorizer else { return Ok(()) };
        match authorizer.authorize(&self.request, routes.node.hub()).instrument(traces::authorize()).await {
            Ok(identity) => {
                self.identity = Some(identity);
                Ok(())
            }
            Err(error) => {
                routes.node.metrics().on_upgrade_refused(error.code.as_str());
                Err(error)
            }
        }
    }

    /// Reserves a place in the node.
    fn take_place(self, routes: Arc<Routes>, span: Span) -> Result<Opening, NotAdmitted> {
        let place = routes.node.take_place().map_err(|max| UpgradeRejection::TooManyConnections { max })?;
        if routes.node.hub().local().is_short_of_memory() {
            return Err(UpgradeRejection::ShortOfMemory.into());
        }
        let peer_addr = self.peer_addr();
        let request = Arc::new(self.request);
        let mut info = ClientInfo { extensions: self.extensions };
        if self.keeps_request {
            info.keep_request(Arc::clone(&request));
        }
        info.set_span(Span::current());
        info.set_trace(trace::context_of(&span));
        let user = self.identity.as_ref().and_then(|identity| identity.user.clone()).or(self.user);
        let client = NewClient { user, identity: self.identity, peer_addr };
        let places = Places { _node: place, _address: self.address_place };
        Ok(Opening { routes, client, info, request, places, span })
    }
}

/// Why a connection may not open.
#[derive(Debug)]
pub(crate) enum NotAdmitted {
    /// A limit is reached.
    Limit(UpgradeRejection),
    /// The authorizer refuses the client.
    Authorizer(CallError),
}

impl NotAdmitted {
    /// Returns the reason in traces: the limit, or the code of the authorizer's error.
    fn reason(&self) -> &'static str {
        match self {
            Self::Limit(rejection) => rejection.reason(),
            Self::Authorizer(error) => error.code.as_str(),
        }
    }
}

impl From<UpgradeRejection> for NotAdmitted {
    fn from(rejection: UpgradeRejection) -> Self {
        Self::Limit(rejection)
    }
}

impl From<CallError> for NotAdmitted {
    fn from(error: CallError) -> Self {
        Self::Authorizer(error)
    }
}

/// A connection that has reserved its place in the node.
pub(crate) struct Opening {
    pub(crate) routes: Arc<Routes>,
    pub(crate) client: NewClient,
    pub(crate) info: ClientInfo,
    /// For the connect handler.
    pub(crate) request: Arc<Parts>,
    pub(crate) places: Places,
    /// The span of the handshake and of the connect handler.
    pub(crate) span: Span,
}

/// What a connection holds until its end: its places among the connections of the node and of its
/// client's address.
pub(crate) struct Places {
    _node: Place,
    _address: Option<AddressPlace>,
}
