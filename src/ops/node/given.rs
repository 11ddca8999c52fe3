//! What `node provision` is given of machines, as people write it.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::model::{Mac, Name};

/// One machine of a bulk call: `NAME,MAC[,NIC]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// The node's name.
    pub name: Name,
    /// Its card.
    pub mac: Mac,
    /// Which card, as the operator calls it.
    pub nic: Option<Name>,
}

impl FromStr for Machine {
    type Err = String;
    fn from_str(s: &str) -> Result<Machine, String> {
        let fields: Vec<&str> = s.split([',', ' ', '\t']).map(str::trim).filter(|f| !f.is_empty()).collect();
        let (name, mac, nic) = match fields[..] {
            [name, mac] => (name, mac, None),
            [name, mac, nic] => (name, mac, Some(nic)),
            _ => return Err(format!("{:?} is not NAME,MAC[,NIC]", s.chars().take(80).collect::<String>())),
        };
        let text = |e: crate::model::name::BadName| e.to_string();
        Ok(Machine {
            name: name.parse().map_err(text)?,
            mac: mac.parse()?,
            nic: nic.map(str::parse).transpose().map_err(text)?,
        })
    }
}

/// A key and a value for drivers: `KEY=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Key.
    pub key: Name,
    /// Value.
    pub value: String,
}

impl FromStr for Setting {
    type Err = String;
    fn from_str(s: &str) -> Result<Setting, String> {
        let (key, value) = s.split_once('=').ok_or_else(|| format!("{s:?} is not KEY=VALUE"))?;
        if value.len() > 255 || value.contains(char::is_control) {
            return Err(format!("the value of {key} is longer than 255 bytes or holds control characters"));
        }
        Ok(Setting {
            key: key.parse().map_err(|e: crate::model::name::BadName| e.to_string())?,
            value: value.to_owned(),
        })
    }
}
