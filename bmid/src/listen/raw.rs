//! Raw calls: JSON text into a request, a failure into JSON text. The texts' shapes are frozen (see `bmi::protocol`).

use bmi::model::{Caller, Fault, Kind, Owner};
use bmi::ops::{OPS, Request};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::near::near;

/// Looked at before the operation's own struct is: does the text hold a context?
#[derive(Deserialize)]
struct Probe {
    context: Option<IgnoredAny>,
}

/// For whom an admin calls: Glance's members, or Cinder's. What is missing is null, false and `no`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Context {
    owner: Option<Owner>,
    project_id: Option<Owner>,
    user_id: Option<String>,
    is_admin: bool,
    show_deleted: bool,
    read_deleted: Option<String>,
}

impl Context {
    /// The caller that an admin acts as.
    fn acting(self, mut caller: Caller) -> Result<Caller, Fault> {
        if !caller.admin {
            return Err(Fault::new(
                Kind::Forbidden,
                format!("{} is no bmi admin and may not send a context", caller.name),
            )
            .fix("leave `context` out: the call acts as its own caller then"));
        }
        if self.show_deleted || self.read_deleted.is_some_and(|r| r != "no") {
            return Err(Fault::invalid("no operation of this release shows what was deleted")
                .fix("leave show_deleted and read_deleted out of `context`"));
        }
        let ((Some(project), None) | (None, Some(project))) = (self.owner, self.project_id) else {
            return Err(Fault::invalid("a context names one project").fix("give owner, or project_id"));
        };
        if let Some(user) = self.user_id {
            // For the trail: who acted, and who had it done.
            caller.name = format!("{} (for {})", caller.name, short(&user));
        }
        caller.project = project;
        caller.admin = self.is_admin;
        Ok(caller)
    }
}

/// What a raw call asks, and as whom. Empty parameters mean none.
pub(super) fn request(method: &str, params: &str, caller: &Caller) -> Result<(Request, Caller), Fault> {
    let tried = || format!("call {}", short(method));
    let text = if params.trim_ascii().is_empty() { "{}" } else { params };
    let bad = |e: serde_json::Error| {
        Fault::invalid(format!("the parameters do not fit: {e}"))
            .trying(tried())
            .fix(format!("`bmictl {} --help` shows what it takes", typed(method)))
    };
    if !OPS.iter().any(|op| op.sheet.method() == method) {
        return Err(unknown(method));
    }
    if !text.trim_ascii_start().starts_with('{') {
        return Err(Fault::invalid("the parameters are no JSON object")
            .trying(tried())
            .fix("give them by name: {\"name\": \"value\"}"));
    }
    let probe: Probe = serde_json::from_str(text).map_err(bad)?;
    if probe.context.is_some() {
        let mut members: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).map_err(bad)?;
        let context = members.remove("context").unwrap_or_default();
        let context: Context = serde_json::from_value(context).map_err(|e| {
            Fault::invalid(format!("the context does not fit: {e}"))
                .trying(tried())
                .fix("it has owner (or project_id), user_id, is_admin and show_deleted (or read_deleted)")
        })?;
        let caller = context.acting(caller.clone()).map_err(|f| f.trying(tried()))?;
        let params = serde_json::Value::Object(members);
        let request = Request::from_call(method, params).ok_or_else(|| unknown(method))?.map_err(bad)?;
        return Ok((request, caller));
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let request = Request::from_call(method, &mut json).ok_or_else(|| unknown(method))?.map_err(bad)?;
    json.end().map_err(bad)?;
    Ok((request, caller.clone()))
}

fn unknown(method: &str) -> Fault {
    let near = near(method, OPS.iter().map(|op| op.sheet.method()));
    let fix = match near.as_slice() {
        [] => "`bmictl --help` lists the operations; a method is NOUN.VERB".to_owned(),
        some => format!("did you mean {}?", some.join(" or ")),
    };
    Fault::new(Kind::NotFound, "there is no such method").trying(format!("call {}", short(method))).fix(fix)
}

/// A method as people type it: `node.boot_script` is `node boot-script`.
fn typed(method: &str) -> String {
    let of = OPS.iter().find(|op| op.sheet.method() == method);
    of.map_or_else(|| short(method), |op| op.sheet.command())
}

/// A name for messages: a client may send a megabyte of it.
fn short(method: &str) -> String {
    method.chars().take(64).map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[derive(Serialize)]
struct Error<'a> {
    code: u8,
    message: String,
    data: Data<'a>,
}

/// The fault whole, with its class beside it.
#[derive(Serialize)]
struct Data<'a> {
    kind: Kind,
    class: &'static str,
    tried: &'a str,
    why: &'a str,
    fix: &'a str,
    causes: &'a [String],
}

/// A fault as JSON text.
pub(super) fn error(fault: &Fault) -> String {
    let class = fault.kind.class();
    let error = Error {
        code: class.exit_code(),
        message: fault.to_string(),
        data: Data {
            kind: fault.kind,
            class: class.as_str(),
            tried: &fault.tried,
            why: &fault.why,
            fix: &fault.fix,
            causes: &fault.causes,
        },
    };
    // Strings and numbers always have a JSON form.
    serde_json::to_string(&error).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> Caller {
        Caller { uid: Some(0), name: "root".to_owned(), admin: true, project: Owner::default_project() }
    }

    fn request(method: &str, params: &str) -> Result<Request, Fault> {
        super::request(method, params, &root()).map(|(request, _)| request)
    }

    #[test]
    fn an_admin_acts_as_the_caller_a_context_names_and_nobody_else_may() {
        let lab = r#"{"context": {"owner": "lab", "is_admin": true}, "all": true}"#;
        let (asked, caller) = super::request("node.ls", lab, &root()).expect("fits");
        assert_eq!(asked, request("node.ls", r#"{"all": true}"#).expect("fits"));
        assert_eq!((caller.project.as_str(), caller.admin), ("lab", true));
        let cinder = r#"{"context": {"project_id": "lab", "user_id": "ann", "read_deleted": "no"}}"#;
        let (_, caller) = super::request("node.ls", cinder, &root()).expect("fits");
        assert!(!caller.admin && caller.name.contains("ann"));
        let plain = Caller { admin: false, ..root() };
        assert_eq!(super::request("node.ls", lab, &plain).expect_err("no admin").kind, Kind::Forbidden);
        for bad in
            [r#"{"is_admin": true}"#, r#"{"owner": "lab", "x": 1}"#, r#"{"owner": "lab", "show_deleted": true}"#, "7"]
        {
            let fault = request("node.ls", &format!(r#"{{"context": {bad}}}"#)).expect_err(bad);
            assert!(fault.kind == Kind::Invalid && !fault.fix.is_empty(), "{fault}");
        }
    }

    #[test]
    fn a_raw_call_becomes_the_request_of_that_name() {
        assert_eq!(request("node.ls", "").map(|r| r.sheet().method()).as_deref(), Ok("node.ls"));
        assert_eq!(request("status", " {} ").map(|r| r.sheet().method()).as_deref(), Ok("status"));
    }

    #[test]
    fn what_does_not_fit_is_invalid_and_says_how() {
        let deep = format!("{{\"x\":{}{}}}", "[".repeat(300), "]".repeat(300));
        for bad in ["[]", "1", "{", "{}x", "{\"nonsense\":1}", "{\"context\":{}}", deep.as_str(), "\u{0}"] {
            let fault = request("node.ls", bad).expect_err(bad);
            assert_eq!(fault.kind, Kind::Invalid, "{bad}: {fault}");
            assert!(!fault.fix.is_empty(), "{bad}");
        }
    }

    #[test]
    fn an_unknown_method_is_not_found_and_names_its_neighbour() {
        let fault = request("node.provison", "{}").expect_err("unknown");
        assert_eq!(fault.kind, Kind::NotFound);
        let boot = request("node.boot_script", "{}").expect_err("no node");
        assert!(boot.fix.contains("`bmictl node boot-script --help`"), "{boot}");
        assert!(fault.fix.contains("node.provision"), "{fault}");
        assert!(request(&"x\n".repeat(100_000), "{}").expect_err("unknown").to_string().len() < 300);
    }

    #[test]
    fn an_error_reads_back_as_the_fault_it_was() {
        let fault = Fault::new(Kind::Busy, "held").trying("x").fix("wait").because("y");
        let json: serde_json::Value = serde_json::from_str(&error(&fault)).expect("json");
        assert_eq!((json["code"].as_u64(), json["data"]["class"].as_str()), (Some(4), Some("conflict")));
        assert_eq!(serde_json::from_value::<Fault>(json["data"].clone()).expect("fault"), fault);
    }
}
