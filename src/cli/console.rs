//! What is for the console: links that sign a person in, and a world to look at.

use std::process::ExitCode;

use super::{Failure, failed, print, progress_bar, progress_lines, user_at};
use crate::access::codes::{Codes, Person};
use crate::commands;
use crate::config::Config;
use crate::database::embedded::Purpose;
use crate::demo;
use crate::service::{self, Core, Service, builtin_issuer};

/// The person whom the service's own links and tokens are for.
pub(super) const OPERATOR: &str = "operator@example.com";
pub(super) const OPERATOR_NAME: &str = "Operator";

/// Where the console of this service is. With a code, if it is shown on a screen: a code does not belong in a log file.
pub(super) fn first_link(service: &Service, config: &Config, on_screen: bool) -> String {
    let console = format!("http://{}/console/", service.address);
    let local = service.issuer.is_some() && config.is_local();
    match local.then(|| on_screen.then(|| Codes::new(&config.data_dir).make(operator()).ok()).flatten()) {
        Some(Some(code)) => format!("{console}#code={code}"),
        Some(None) => format!("{console}  (`tenancy console` prints a link that signs you in)"),
        None => console,
    }
}

fn operator() -> Person {
    Person { email: OPERATOR.to_owned(), name: Some(OPERATOR_NAME.to_owned()) }
}

/// Prints a link for this person.
pub(super) fn link(config: &Config, email: Option<String>, name: Option<String>) -> Result<ExitCode, Failure> {
    if !config.http.console || !config.is_local() || !config.builtin_issuer() {
        return Err(failed(
            "nobody signs in to the console by a link here",
            "links are for a service that listens on loopback with the built-in issuer and http.console; elsewhere people sign in \
             at a provider with a console_client (access.providers)",
        ));
    }
    // So that the directory is there, with the right mode.
    builtin_issuer(config)?;
    let person = match email {
        Some(email) => Person { email, name },
        None => Person { name: name.or(operator().name), ..operator() },
    };
    let code = Codes::new(&config.data_dir).make(person);
    let code = code.map_err(|error| failed(error, "see to the data directory, and repeat it"))?;
    Ok(print(&format!("http://{}/console/#code={code}\n", config.listen)))
}

/// Fills the installation, as this operator.
pub(super) async fn demo(config: &Config, operator: String) -> Result<ExitCode, Failure> {
    let core = Core::open(config, Purpose::Command).await?;
    core.catch_up().await?;
    let filled = fill(&core, config, operator).await;
    core.catch_up().await?;
    core.close().await?;
    let demo::Summary { organizations, people, events, refusals } = filled?;
    Ok(print(&format!(
        "{organizations} organizations, {people} people, {events} events, {refusals} refusals.\n`tenancy console` signs you in.\n"
    )))
}

async fn fill(core: &Core, config: &Config, email: String) -> Result<demo::Summary, Failure> {
    let user = user_at(core, config, &email).await.map_err(service::Error::from)?;
    let operator = commands::Person { user, email: Some(email), operator: true, organization: None };
    let progress = progress_bar();
    let lines = tokio::spawn(progress_lines(progress.clone()));
    let filled = demo::fill(&core.commands, &config.access.issuer, operator, &progress).await;
    lines.abort();
    filled.map_err(|error| match error {
        demo::Failed::NotFresh => failed(error, "give it a data directory of its own: tenancy --data-dir DIR demo"),
        demo::Failed::Fault(_) | demo::Failed::Refused { .. } => {
            failed(error, "begin again with an empty data directory: tenancy --data-dir DIR demo")
        }
    })
}
