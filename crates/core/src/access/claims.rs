//! Values in claims, such as those of a token.

use serde_json::Value;

/// Returns the claim at a dotted path. A key can itself contain dots, as in Auth0's
/// `https://app.example/roles`. The longest key that leads to a value takes precedence.
///
/// ```
/// # use roomcast_core as roomcast;
/// use roomcast::claim;
/// use serde_json::json;
///
/// let claims = json!({ "realm_access": { "roles": ["admin"] }, "https://app.example/team": 7 });
/// assert_eq!(claim(&claims, "realm_access.roles"), Some(&json!(["admin"])));
/// assert_eq!(claim(&claims, "https://app.example/team"), Some(&json!(7)));
/// ```
pub fn claim<'a>(claims: &'a Value, path: &str) -> Option<&'a Value> {
    let object = claims.as_object()?;
    object
        .get(path)
        .or_else(|| path.rmatch_indices('.').find_map(|(dot, _)| claim(object.get(&path[..dot])?, &path[dot + 1..])))
}

/// Returns the text of a claim that is a string, a number or a boolean.
pub(crate) fn claim_text(claims: &Value, path: &str) -> Option<String> {
    match claim(claims, path)? {
        Value::String(text) => Some(text.clone()),
        value @ (Value::Number(_) | Value::Bool(_)) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
