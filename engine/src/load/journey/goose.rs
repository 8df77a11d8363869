//! The one door to goose: it brings people together, and each lives the life that it is given.

use std::pin::Pin;
use std::sync::Arc;

use goose::GooseError;
use goose::client::GooseClientBuilder;
use goose::config::GooseConfiguration;
use goose::prelude::{GooseAttack, Scenario, Transaction, TransactionResult};

/// What a person does from first to last, by the number of the person.
pub(super) type Life = Arc<dyn Fn(usize) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// Users that are launched per second.
const LAUNCHES: u32 = 100_000;

/// Brings people together; returns when every one of them has lived. Dropping it does not end them: their runtime must go
/// as well.
///
/// # Errors
/// goose refuses.
pub(super) async fn gather(people: u32, life: Life) -> Result<(), String> {
    // goose counts, prints, writes and listens to nothing: all that is ours.
    let mut configuration = GooseConfiguration::default();
    configuration.host = Some("http://127.0.0.1/".to_owned());
    configuration.users = Some(people as usize);
    configuration.increase_rate = Some(LAUNCHES.to_string());
    configuration.iterations = Some(1);
    configuration.no_metrics = true;
    configuration.no_print_metrics = true;
    configuration.no_telnet = true;
    configuration.no_websocket = true;
    configuration.quiet = 2;
    let live = Transaction::new(Arc::new(move |user| {
        let life = life(user.weighted_users_index);
        Box::pin(async move {
            life.await;
            TransactionResult::Ok(())
        })
    }));
    let said = |error: GooseError| format!("goose refused: {error}");
    let attack = GooseAttack::initialize_with_config(configuration).map_err(said)?;
    let attack = attack.set_client_builder_without_cookies(GooseClientBuilder::new().without_cookies());
    let attack = attack.map_err(said)?.register_scenario(Scenario::new("journey").register_transaction(live));
    // Its own numbers are of no use: it was told to keep none.
    Box::pin(attack.execute()).await.map(drop).map_err(said)
}
