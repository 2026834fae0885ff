// Starts GraphiQL on this page. Its own file, since the page's policy allows no script inside of the page.
'use strict';

const endpoint = new URL('graphql', document.baseURI).href;

const welcome = `# Welcome to tenancy.
#
# A token says who you are. Print one in a shell:
#
#   tenancy token --email you@example.com --operator
#
# (an operator may also verify and limit
# organizations). Paste it below, under "Headers",
# behind the word Bearer:
#
#   { "Authorization": "Bearer eyJ…" }
#
# Then press the play button, or Ctrl-Enter.
# Ctrl-Space completes names; the book at the top
# left opens the documentation.

query Me {
  viewer {
    user { id email }
    operator
    memberships(first: 10) {
      edges {
        node {
          roles
          organization { id slug name verification }
        }
      }
    }
  }
}
`;

// The header is there from the start, so that only the token has to be pasted.
const defaultHeaders = '{\n  "Authorization": "Bearer "\n}';

// Without its token that header would be a wrong one, where none would do: the schema can be read by anybody.
function withoutEmptyToken(headers) {
  const kept = Object.entries(headers ?? {}).filter(
    ([name, value]) => name.toLowerCase() !== 'authorization' || !/^(bearer)?\s*$/i.test(String(value)),
  );
  return Object.fromEntries(kept);
}

// Whether a subscription is asked for. GraphiQL hands over the parsed document.
function isSubscription(parameters, options) {
  const operations = (options?.documentAST?.definitions ?? []).filter(({ kind }) => kind === 'OperationDefinition');
  const name = parameters.operationName;
  return operations.some((one) => one.operation === 'subscription' && (!name || one.name?.value === name));
}

// The results of a subscription, as server-sent events bring them.
async function* subscribe(parameters, options) {
  const abort = new AbortController();
  const response = await fetch(`${endpoint}/sse`, {
    method: 'POST',
    headers: {
      ...withoutEmptyToken(options?.headers),
      'content-type': 'application/json',
      accept: 'text/event-stream',
    },
    body: JSON.stringify(parameters),
    signal: abort.signal,
  });
  if (!response.ok) {
    const text = await response.text();
    try {
      yield JSON.parse(text);
    } catch {
      yield { errors: [{ message: `${response.status} ${response.statusText}: ${text.slice(0, 500)}` }] };
    }
    return;
  }
  try {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = '';
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const events = (text + value).split('\n\n');
      text = events.pop();
      for (const event of events) {
        const lines = event.split('\n');
        const data = lines.find((line) => line.startsWith('data: '));
        if (lines.includes('event: next') && data) yield JSON.parse(data.slice('data: '.length));
        if (lines.includes('event: complete')) return;
      }
    }
  } finally {
    // Whoever stops it closes the connection.
    abort.abort();
  }
}

async function fetcher(parameters, options) {
  if (isSubscription(parameters, options)) return subscribe(parameters, options);
  const response = await fetch(endpoint, {
    method: 'POST',
    headers: {
      ...withoutEmptyToken(options?.headers),
      'content-type': 'application/json',
      accept: 'application/graphql-response+json, application/json;q=0.9',
    },
    body: JSON.stringify(parameters),
  });
  const text = await response.text();
  try {
    return JSON.parse(text);
  } catch {
    // Not from the service, but from something in front of it.
    return { errors: [{ message: `${response.status} ${response.statusText}: ${text.slice(0, 500)}` }] };
  }
}

ReactDOM.createRoot(document.getElementById('graphiql')).render(
  React.createElement(GraphiQL, {
    fetcher,
    defaultQuery: welcome,
    defaultHeaders,
    defaultEditorToolsVisibility: 'headers',
  }),
);
