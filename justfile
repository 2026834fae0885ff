# The common tasks; each is a line that can be typed as well.

# Run the service on http://127.0.0.1:8080
run:
    cargo run --release

# All tests; they start a PostgreSQL of their own
test:
    cargo test --workspace

# Services under faults, and a checker of what is left: kill -9, cut connections, full disks, clocks that jump
faults seconds="60":
    cargo build --release -p tenancy -p faults
    target/release/faults --seconds {{seconds}}

# What has to pass before a change lands
ci:
    .ci/run

# Rewrite what is generated: SQL metadata, schema.graphql, config.example.toml, golden JSON of new events
bless:
    scripts/bless

# The 61 audits of GraphQL over HTTP against a running service (needs npm)
audit url="http://127.0.0.1:8080/graphql":
    cd tests/graphql-http && npm ci --silent && node audit.mjs {{url}}

# The schema as clients' build tools see it (needs npm)
schema:
    cd tests/graphql-schema && npm ci --silent && ./check
