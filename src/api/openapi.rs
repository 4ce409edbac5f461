//! Every route with its documentation, and the document made of them.

use utoipa::OpenApi;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    ContentBuilder, Ref, RefOr, ResponseBuilder, SecurityRequirement, path::PathItem,
};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::problem::ProblemBody;
use super::{
    ApiState, ask, decisions, health, hosts, jobs, logs, metrics, pools, remove, replicas, runners,
    scale, status,
};

const TOKEN_SCHEME: &str = "api_token";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Runner Orchestrator",
        description = "A fleet of ephemeral GitHub Actions runners on Docker hosts.\n\n\
            Every replica answers the same. Reads are rendered from the last view, say how old \
            it is, and cost no GitHub call. Writes record an \
            intent and wait up to three seconds for the leader's answer. Errors are RFC 9457 \
            problems. The token is needed only where one is configured.",
        license(name = "MIT", identifier = "MIT"),
    ),
    components(schemas(ProblemBody)),
    tags(
        (name = "observe", description = "What there is, and why"),
        (name = "operate", description = "What an operator asks for"),
        (name = "probes", description = "For machines that watch the process"),
    ),
)]
struct Document;

/// Every route, with its part of the document.
pub(super) fn documented() -> OpenApiRouter<ApiState> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(health::index))
        .routes(routes!(health::health))
        .routes(routes!(health::health_v1))
        .routes(routes!(health::livez))
        .routes(routes!(health::readyz))
        .routes(routes!(metrics::metrics))
        .routes(routes!(metrics::cluster_metrics))
        .routes(routes!(status::get_status))
        .routes(routes!(runners::list_runners))
        .routes(routes!(scale::scale_up))
        .routes(routes!(scale::scale_down))
        .routes(routes!(remove::remove_runner))
        .routes(routes!(logs::runner_logs))
        .routes(routes!(pools::list_pools))
        .routes(routes!(pools::pause_pool))
        .routes(routes!(pools::resume_pool))
        .routes(routes!(pools::freeze))
        .routes(routes!(pools::unfreeze))
        .routes(routes!(hosts::list_hosts))
        .routes(routes!(hosts::drain_host))
        .routes(routes!(hosts::undrain_host))
        .routes(routes!(replicas::list_replicas))
        .routes(routes!(replicas::drain_replica))
        .routes(routes!(replicas::undrain_replica))
        .routes(routes!(jobs::list_jobs))
        .routes(routes!(jobs::why_waiting))
        .routes(routes!(decisions::list_decisions))
        .routes(routes!(ask::get_intent))
}

/// Adds what holds for every operation: the token, and the problems any may answer with.
pub(super) fn finish(mut document: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("API_TOKEN, where one is configured"))
        .build();
    let components = document.components.get_or_insert_default();
    components.add_security_scheme(TOKEN_SCHEME, SecurityScheme::Http(scheme));
    for item in document.paths.paths.values_mut() {
        for operation in operations(item) {
            complete(operation);
        }
    }
    document
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.post, &mut item.delete].into_iter().flatten()
}

fn complete(operation: &mut Operation) {
    let is_open = operation.security.is_some();
    if !is_open {
        let needed = SecurityRequirement::new::<_, [&str; 0], &str>(TOKEN_SCHEME, []);
        operation.security = Some(vec![needed]);
        problem(operation, "401", "A token is configured and was not sent or is another");
    }
    problem(operation, "400", "A header, the path, the query or the body cannot be used");
    problem(operation, "403", "Sent by another web page");
    problem(operation, "413", "The body is larger than 64 KiB");
    problem(operation, "421", "`Host` names another server");
    problem(operation, "500", "Something went wrong here; the log has the cause");
    problem(operation, "503", "Stopping, or a dependency does not answer; try again");
}

fn problem(operation: &mut Operation, status: &str, description: &str) {
    let schema = Ref::from_schema_name("Problem");
    let content = ContentBuilder::new().schema(Some(schema)).build();
    let response = ResponseBuilder::new()
        .description(description)
        .content("application/problem+json", content)
        .build();
    let responses = &mut operation.responses.responses;
    responses.entry(status.to_owned()).or_insert(RefOr::T(response));
}

/// Swagger UI under `/docs`, its files in this binary, and the document it shows.
pub(super) fn swagger_ui(document: utoipa::openapi::OpenApi) -> SwaggerUi {
    SwaggerUi::new("/docs")
        .url("/openapi.json", document.clone())
        .url("/api/v1/openapi.json", document)
        .config(Config::from("/openapi.json").persist_authorization(false))
}

/// The document, as served and as checked in, ended by a line break.
#[must_use]
pub fn openapi_json() -> String {
    let document = finish(documented().into_openapi());
    let mut text = document.to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}
