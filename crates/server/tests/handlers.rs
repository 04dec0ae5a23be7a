//! Handlers: their state, their connection's request, their names and backpressure.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use axum::Extension;
use axum::extract::{FromRef, State};
use axum::http::{HeaderMap, Request, Uri};
use axum::routing::get;
use bytes::Bytes;
use common::wait_until;
use parking_lot::Mutex;
use roomcast::testing::{self, ClientBuilder, ConnectError};
use roomcast::{
    CallError, CloseCode, Code, Context, FromContext, Name, Node, NotifyError, Options, Router, Socket,
    SocketIoUpgrade, Text, UserId,
};

fn router() -> Router {
    Router::new(Node::embedded(Options::default()))
}

#[derive(Clone)]
struct App {
    greeting: &'static str,
}

impl FromRef<App> for String {
    fn from_ref(app: &App) -> Self {
        app.greeting.to_owned()
    }
}

/// An extractor that waits, and that needs the state.
struct Greeting(String);

impl<C: Context> FromContext<C, App> for Greeting {
    async fn from_context(context: &C, app: &App) -> Result<Self, CallError> {
        tokio::task::yield_now().await;
        match context.socket().user() {
            Some(user) => Ok(Self(format!("{}, {user}", app.greeting))),
            None => Err(CallError::new(Code::Unauthenticated, "log in first").with_details(["cookie"])),
        }
    }
}

#[tokio::test]
async fn handlers_get_the_state_that_the_router_has_when_they_are_added() {
    let router = router()
        .call("none", async || "none")
        .with_state(App { greeting: "Hello" })
        .quick_call("whole", async |State(app): State<App>| app.greeting)
        .call("part", async |State(greeting): State<String>| greeting)
        .call("greet", async |Greeting(greeting): Greeting| greeting)
        .with_state(7_u32)
        .call("number", async |State(number): State<u32>| number.to_string());
    let ann = ClientBuilder::default().user(UserId::new("ann").unwrap());
    let (mut ann, _) = ann.connect(&router).await.unwrap();
    for (method, expected) in
        [("none", "none"), ("whole", "Hello"), ("part", "Hello"), ("greet", "Hello, ann"), ("number", "7")]
    {
        assert_eq!(ann.call(method, ()).await.unwrap(), expected);
    }
    let (mut nobody, _) = testing::connect(&router).await.unwrap();
    let refused = nobody.call("greet", ()).await.unwrap_err();
    assert_eq!((refused.code, refused.details()), (Code::Unauthenticated, Some(&serde_json::json!(["cookie"]))));
}

#[tokio::test]
async fn routers_merge_and_fall_back() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let base = router().call("one", async || "1");
    let other = Router::new(base.node().clone())
        .with_state(Arc::clone(&seen))
        .call("two", async || "2")
        .fallback(async |name: Name, Text(text): Text| format!("{name}? {text}"))
        .notify_fallback(async |State(seen): State<Arc<Mutex<Vec<Name>>>>, name: Name| seen.lock().push(name));
    let (mut client, _) = testing::connect(&base.merge(other)).await.unwrap();
    assert_eq!(client.call("one", ()).await.unwrap(), "1");
    assert_eq!(client.call("two", ()).await.unwrap(), "2");
    assert_eq!(client.call("three", "!").await.unwrap(), "three? !");
    let denied = client.call("rooms/join/hall", ()).await.unwrap_err();
    assert_eq!(denied.code, Code::PermissionDenied, "rooms have no fallback");
    assert_eq!(client.call("rooms/dance/hall", ()).await.unwrap_err().code, Code::NotFound);
    let unnamed = client.call("rooms/join", ()).await.unwrap_err();
    assert_eq!((unnamed.code, unnamed.message.as_str()), (Code::InvalidArgument, "name a room: rooms/join/<room>"));
    client.notify("wave", ()).await;
    wait_until("the event is handled", || seen.lock().iter().any(|name| **name == *"wave")).await;
}

#[tokio::test]
async fn names_that_can_not_be_added_are_refused() {
    let refusal = |add: &dyn Fn() -> Router| {
        let panic = catch_unwind(AssertUnwindSafe(|| drop(add()))).unwrap_err();
        match panic.downcast::<String>() {
            Ok(text) => *text,
            Err(panic) => (*panic.downcast::<&str>().unwrap()).to_owned(),
        }
    };
    let router = router().call("one", async || ()).notify("one", async || ());
    let add = |name: &'static str| router.clone().call(name, async || ());
    assert_eq!(refusal(&|| add("one")), r#"the router has a call "one" already"#);
    let twice = refusal(&|| router.clone().quick_notify("one", async || ()));
    assert_eq!(twice, r#"the router has a notification "one" already"#);
    assert_eq!(refusal(&|| router.clone().merge(router.clone())), r#"the router has a call "one" already"#);
    let guarded = Router::new(router.node().clone()).on_connect(async || Err::<(), _>(CallError::invalid_argument("")));
    assert!(refusal(&|| router.clone().merge(guarded.clone())).contains("connect handler"));
    assert!(refusal(&|| add("rooms/join/hall")).contains("reserved"));
    assert!(refusal(&|| add(Box::leak("n".repeat(256).into()))).contains("255"));
}

#[tokio::test]
async fn connect_handlers_see_the_request_and_others_if_it_is_kept() {
    let router = router()
        .on_connect(async |socket: Socket, headers: HeaderMap, uri: Uri, Extension(tenant): Extension<&'static str>| {
            socket.notify("hello", format!("{:?} {uri} {tenant}", headers["x-color"]))
        })
        .call("color", async |headers: HeaderMap| format!("{:?}", headers["x-color"]))
        .call("tenant", async |Extension(tenant): Extension<&'static str>| tenant);
    for keeps in [false, true] {
        let router = router.clone();
        let upgrade = async move |upgrade: SocketIoUpgrade| match keeps {
            true => upgrade.keep_request().route(&router).await,
            false => upgrade.route(&router).await,
        };
        let app = axum::Router::new().route("/socket", get(upgrade)).layer(Extension("acme"));
        let request = Request::get("/socket?a=b").header("x-color", "red").body(()).unwrap();
        let mut client = testing::open(app, request).await.unwrap();
        assert_eq!(client.event().await.payload, "\"red\" /socket?a=b acme");
        for (method, kept) in [("color", "\"red\""), ("tenant", "acme")] {
            match client.call(method, ()).await {
                Ok(value) => assert_eq!((value, keeps), (Bytes::from(kept), true)),
                Err(error) => assert_eq!((error.code, keeps), (Code::Internal, false)),
            }
        }
    }
}

#[tokio::test]
async fn a_refused_client_learns_why() {
    let refuses = async || Err::<(), _>(CallError::new(Code::PermissionDenied, "members only"));
    let refused = testing::connect(&router().on_connect(refuses)).await.unwrap_err();
    let ConnectError::Closed(closed) = refused else { panic!("{refused}") };
    assert_eq!((closed.code, closed.reason.as_str()), (CloseCode::POLICY_VIOLATION, "members only"));
}

#[tokio::test]
async fn a_handler_that_waits_until_its_client_is_ready_sends_as_much_as_it_likes() {
    const CHUNKS: usize = 200;
    let options = Options::default().with(|options| options.max_outbound = 256 * 1024);
    let router = Router::new(Node::embedded(options)).call("all", async |socket: Socket| {
        for _ in 0..CHUNKS {
            socket.ready().await;
            socket.notify("chunk", vec![0; 64 * 1024])?;
        }
        Ok::<_, NotifyError>(())
    });
    let (mut client, _) = testing::connect(&router).await.unwrap();
    let call = client.start("all", ()).await;
    for _ in 0..CHUNKS {
        assert_eq!(client.event().await.payload.len(), 64 * 1024);
    }
    client.response(call).await.unwrap();
}

#[tokio::test]
async fn a_handler_learns_that_its_event_was_not_sent() {
    let options = Options::default().with(|options| options.max_outbound = 64 * 1024);
    let (client, socket) = testing::connect(&Router::new(Node::embedded(options))).await.unwrap();
    assert!(matches!(socket.notify(&"n".repeat(256), ()), Err(NotifyError::NameTooLong(_))));
    let fill = || socket.notify("chunk", vec![0; 1024]);
    let error = std::iter::repeat_with(fill).find_map(Result::err);
    assert_eq!(error, Some(NotifyError::SlowConsumer));
    assert_eq!(fill(), Err(NotifyError::Closed));
    // Whoever waits for an ended connection does not wait for ever.
    socket.ready().await;
    drop(client);
    assert_eq!(socket.close(CloseCode(1005), "").unwrap_err().code, Code::InvalidArgument);
}
