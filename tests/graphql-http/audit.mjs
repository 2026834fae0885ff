// Runs the audits of `graphql-http` against a running service:
//
//     npm ci && node audit.mjs http://127.0.0.1:8080/graphql
//
// Every audit must be ok, those that the specification merely recommends (SHOULD, MAY) included. Exit code 0: all
// are; 1: some are not, each is printed with its reason; 2: the audits could not be run.

import { serverAudits } from 'graphql-http';

// A release with fewer audits would otherwise pass for "all".
const EXPECTED = 61;
const TIMEOUT_MS = 10_000;

const url = process.argv[2] ?? process.env.GRAPHQL_URL;
if (!url || process.argv.length > 3) {
  console.error('usage: node audit.mjs URL   (such as http://127.0.0.1:8080/graphql, or in GRAPHQL_URL)');
  process.exit(2);
}

const fetchFn = (input, init) => fetch(input, { ...init, signal: AbortSignal.timeout(TIMEOUT_MS) });

try {
  await fetchFn(url, { method: 'GET' });
} catch (error) {
  console.error(`nothing answers at ${url}: ${error.cause?.message ?? error.message}. Start the service first.`);
  process.exit(2);
}

// One after the other, so that a failure can be read beside the service's log.
const counts = { ok: 0, warn: 0, notice: 0, error: 0 };
const audits = serverAudits({ url, fetchFn });
for (const audit of audits) {
  const result = await audit.fn().catch((error) => ({ status: 'error', reason: `the audit itself failed: ${error}` }));
  counts[result.status] += 1;
  if (result.status === 'ok') continue;
  console.error(`${result.status.padEnd(6)} ${audit.id} ${audit.name}\n       ${result.reason}`);
  if (result.response) {
    const { status, headers } = result.response;
    console.error(`       answered ${status}, ${headers.get('content-type') ?? 'no content type'}`);
  }
}

console.log(`${counts.ok} of ${audits.length} audits ok (${counts.warn} warn, ${counts.notice} notice, ${counts.error} error)`);
if (audits.length !== EXPECTED) {
  console.error(`${audits.length} audits instead of ${EXPECTED}: look at what changed in graphql-http, then set EXPECTED.`);
}
process.exitCode = counts.ok === audits.length && audits.length === EXPECTED ? 0 : 1;
