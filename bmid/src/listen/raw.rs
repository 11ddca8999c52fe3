//! Raw calls: JSON text into a request, a failure into JSON text. The texts' shapes are frozen (see `bmi::protocol`).

use bmi::model::{Fault, Kind};
use bmi::ops::{OPS, Request};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::near::near;

/// Looked at before the operation's own struct is: does the text hold a context?
#[derive(Deserialize)]
struct Probe {
    context: Option<IgnoredAny>,
}

/// What a raw call asks. Empty parameters mean none.
pub(super) fn request(method: &str, params: &str) -> Result<Request, Fault> {
    let tried = || format!("call {}", short(method));
    let text = if params.trim_ascii().is_empty() { "{}" } else { params };
    let bad = |e: serde_json::Error| {
        Fault::invalid(format!("the parameters do not fit: {e}"))
            .trying(tried())
            .fix(format!("`bmictl {} --help` shows what it takes", method.replace(['.', '_'], " ").trim()))
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
        return Err(Fault::invalid("this release knows no `context` yet: every call acts as its own caller")
            .trying(tried())
            .fix("leave `context` out"));
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let request = Request::from_call(method, &mut json).ok_or_else(|| unknown(method))?.map_err(bad)?;
    json.end().map_err(bad)?;
    Ok(request)
}

fn unknown(method: &str) -> Fault {
    let near = near(method, OPS.iter().map(|op| op.sheet.method()));
    let fix = match near.as_slice() {
        [] => "`bmictl --help` lists the operations; a method is NOUN.VERB".to_owned(),
        some => format!("did you mean {}?", some.join(" or ")),
    };
    Fault::new(Kind::NotFound, "there is no such method").trying(format!("call {}", short(method))).fix(fix)
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
