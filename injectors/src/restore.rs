//! Taking changes back and proving it: the one path for the engine, the guardian and `squall recover`.

use std::time::Duration;

use serde_json::Value;

use crate::{Change, Env, Injector, Undone, registry};

/// How often an undo is tried before it counts as failed.
const TRIES: u32 = 3;
/// How long the world may take to look as before.
const PICTURE_DEADLINE: Duration = Duration::from_secs(5);
/// How long one step of an undo may take before it is given up, whatever it waits for. Longer than any injector's own
/// deadline; a process that `comes-back` within its own time gets that time on top.
const STEP_DEADLINE: Duration = Duration::from_secs(30);

/// Why the world is not as it was; completes "failed to restore …".
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RestoreError {
    /// This version does not know the fault.
    #[error("unknown fault {0}")]
    Unknown(String),
    /// Every try failed; the last reason.
    #[error("{0}")]
    Failed(String),
    /// The undo ran, but the picture after is not the picture before.
    #[error("undone, but not as before: {}", differences(before, after))]
    Unverified {
        /// The picture before.
        before: Value,
        /// The picture after.
        after: Value,
    },
}

/// Takes one change back and compares pictures.
///
/// # Errors
/// See [`RestoreError`].
pub async fn restore(env: &Env, change: &Change) -> Result<Undone, RestoreError> {
    let injector =
        registry::find(&change.fault).ok_or_else(|| RestoreError::Unknown(change.fault.clone()))?;
    let mut pause = Duration::from_millis(100);
    let mut tried = 1;
    let outcome = loop {
        match limited(injector.undo(env, &change.undo)).await {
            Ok(outcome) => break outcome,
            Err(error) if tried == TRIES => return Err(RestoreError::Failed(error)),
            Err(_) => {
                tokio::time::sleep(pause).await;
                pause *= 3;
                tried += 1;
            }
        }
    };
    verify(env, injector, change).await?;
    Ok(outcome)
}

/// What a person types now that a change could not be taken back: only what helps, as things are.
pub fn by_hand(env: &Env, change: &Change) -> String {
    registry::find(&change.fault)
        .map_or_else(|| change.manual.clone(), |injector| injector.by_hand(env, change))
}

/// Compares the picture now with the picture before, until they are equal or time is up.
async fn verify(env: &Env, injector: &dyn Injector, change: &Change) -> Result<(), RestoreError> {
    let patience = async {
        let mut pause = Duration::from_millis(2);
        loop {
            let after = limited(injector.picture(env, &change.undo)).await;
            if after.as_ref().is_ok_and(|after| same(&change.picture, after)) {
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    };
    if tokio::time::timeout(PICTURE_DEADLINE, patience).await.is_ok() {
        return Ok(());
    }
    let after = limited(injector.picture(env, &change.undo)).await.map_err(RestoreError::Failed)?;
    Err(RestoreError::Unverified { before: change.picture.clone(), after })
}

/// A thing that is gone altogether, such as a lab that has ended, carries no fault; nor does one of several.
fn same(before: &Value, after: &Value) -> bool {
    match (before, after) {
        _ if before == after || after["gone"] == Value::Bool(true) => true,
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            before.iter().zip(after).all(|(before, after)| same(before, after))
        }
        _ => false,
    }
}

/// The most differences that are told.
const TOLD_MAX: usize = 4;

/// What is not as before, for people: `freezer.state is FROZEN instead of THAWED`.
fn differences(before: &Value, after: &Value) -> String {
    let mut found = Vec::new();
    differ("", before, after, &mut found);
    let more = found.len().saturating_sub(TOLD_MAX);
    found.truncate(TOLD_MAX);
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    found.join(", ") + &more
}

fn differ(at: &str, before: &Value, after: &Value, found: &mut Vec<String>) {
    match (before, after) {
        _ if same(before, after) => {}
        (Value::Object(before), Value::Object(now)) => {
            let names: std::collections::BTreeSet<&String> = before.keys().chain(now.keys()).collect();
            for name in names {
                let inside = if at.is_empty() { name.clone() } else { format!("{at} {name}") };
                let part = |of: &serde_json::Map<String, Value>| of.get(name).cloned().unwrap_or_default();
                differ(&inside, &part(before), &part(now), found);
            }
        }
        (Value::Array(before), Value::Array(now)) if before.len() == now.len() => {
            let several = before.len() > 1;
            for (number, (before, now)) in before.iter().zip(now).enumerate() {
                let inside = match at {
                    _ if !several => at.to_owned(),
                    "" => format!("part {}", number + 1),
                    _ => format!("{at}, part {}", number + 1),
                };
                differ(&inside, before, now, found);
            }
        }
        _ => {
            let at = if at.is_empty() { "it" } else { at };
            let at = at.replace('_', " ");
            found.push(format!("{at} is {} instead of {}", plain(after), plain(before)));
        }
    }
}

/// A value without the signs of a language.
fn plain(value: &Value) -> String {
    let joined = |parts: Vec<String>| {
        if parts.is_empty() { "nothing".to_owned() } else { parts.join(" and ") }
    };
    match value {
        Value::Null => "not there".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => joined(items.iter().map(plain).collect()),
        Value::Object(fields) => {
            joined(fields.iter().map(|(name, value)| format!("{name} {}", plain(value))).collect())
        }
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

async fn limited<T>(step: crate::Pending<'_, Result<T, crate::InjectError>>) -> Result<T, String> {
    match tokio::time::timeout(STEP_DEADLINE, step).await {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(_) => Err(format!("it took longer than {STEP_DEADLINE:?}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_as_before_is_told_in_words() {
        let told = |before, after| RestoreError::Unverified { before, after }.to_string();
        assert_eq!(
            told(json!([[{"held": false, "kept": 1}]]), json!([[{"held": true, "kept": 1}]])),
            "undone, but not as before: held is true instead of false"
        );
        assert_eq!(
            told(json!([{"a_b": 1}, {"a_b": 1}]), json!([{"a_b": 1}, {"a_b": 2}])),
            "undone, but not as before: part 2 a b is 2 instead of 1"
        );
        assert_eq!(told(json!(["a"]), json!([])), "undone, but not as before: it is nothing instead of a");
        assert_eq!(
            told(json!({"changed": [], "s": "THAWED"}), json!({"changed": ["web in net"], "s": "FROZEN"})),
            "undone, but not as before: changed is web in net instead of nothing, s is FROZEN instead of THAWED"
        );
        let (before, after) = ((0..9).map(|_| json!(1)).collect(), (0..9).map(|_| json!(2)).collect());
        assert!(told(Value::Array(before), Value::Array(after)).ends_with("instead of 1, and 5 more"));
    }

    #[test]
    fn what_is_gone_carries_no_fault_and_what_is_left_must_be_as_before() {
        let before = json!([[{"held": false}], [{"held": false}, {"held": false}]]);
        assert!(same(&before, &before) && same(&before, &json!({"gone": true})));
        assert!(same(&before, &json!([{"gone": true}, [{"held": false}, {"held": false}]])));
        assert!(same(&before, &json!([[{"held": false}], [{"gone": true}, {"held": false}]])));
        assert!(!same(&before, &json!([{"gone": true}, [{"held": false}, {"held": true}]])));
        assert!(!same(&before, &json!([{"gone": true}])));
    }
}
