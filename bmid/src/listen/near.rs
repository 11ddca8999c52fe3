//! Names near a mistyped one: for messages only.

/// Those of `known` that are near `given`, nearest first, at most three.
#[must_use]
pub fn near(given: &str, known: impl IntoIterator<Item = impl AsRef<str>>) -> Vec<String> {
    let given: String = given.chars().take(64).collect();
    let reach = (given.chars().count() / 3).clamp(1, 4);
    let mut found: Vec<(usize, String)> = known
        .into_iter()
        .map(|k| (distance(&given, k.as_ref()), k.as_ref().to_owned()))
        .filter(|(d, _)| *d <= reach)
        .collect();
    found.sort();
    found.truncate(3);
    found.into_iter().map(|(_, name)| name).collect()
}

/// How many characters must be put in, taken out or changed to make `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, cb) in b.iter().enumerate() {
            let changed = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_name_and_nonsense_finds_none() {
        let known = ["node.provision", "node.show", "image.ls"];
        assert_eq!(near("node.provison", known), ["node.provision"]);
        assert_eq!(near("node.shwo", known), ["node.show"]);
        assert!(near("subject_create", known).is_empty());
        assert!(near("", known).is_empty());
    }
}
