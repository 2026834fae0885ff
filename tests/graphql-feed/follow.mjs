// Follows the feed of an organization across cuts: the recipe of docs/clients.md.

const FEED = `subscription($organization: ID!, $after: Position) {
  auditEvents(organizationId: $organization, after: $after) { position event { id } } }`;

/** Everything after `position`, each once and in order, until `client` is disposed of. A refusal is thrown. */
export async function* follow(client, organization, position) {
  for (;;) {
    try {
      const variables = { organization, after: position };
      for await (const { data, errors } of client.iterate({ query: FEED, variables })) {
        if (errors) throw errors;
        position = data.auditEvents.position;
        if (data.auditEvents.event) yield data.auditEvents;
      }
      return;
    } catch (error) {
      // A replica that stops says so, and where to go on; any other refusal would come again.
      if (Array.isArray(error) && error[0]?.extensions?.code !== 'UNAVAILABLE') throw error;
      await new Promise((wait) => setTimeout(wait, 200 * Math.random()));
    }
  }
}
