import { type Cache, cacheExchange, type Entity } from '@urql/exchange-graphcache';
import schema from '../generated/introspection.json';

/**
 * What a command or an event makes stale, besides the object that it is about: fields of the organization, and
 * queries at the root. The first part of the event's action (`project.created`) and the payload's type
 * (`ProjectPayload`) name the row. A type without a key of its own is null. A new kind of object is a new row.
 */
const STALE: Record<string, { type: string | null; payloads: RegExp; fields: readonly string[]; roots?: readonly string[] }> = {
  project: { type: 'Project', payloads: /Project/, fields: ['projects', 'limits'] },
  member: { type: 'Membership', payloads: /Membership/, fields: ['members', 'limits'], roots: ['permissions'] },
  invitation: { type: 'Invitation', payloads: /Invit/, fields: ['invitations', 'members', 'limits'] },
  ownership: { type: 'Membership', payloads: /Ownership/, fields: ['ownershipOffer', 'members'], roots: ['permissions'] },
  token: { type: 'ApiToken', payloads: /ApiToken/, fields: ['apiTokens', 'limits'] },
  webhook: { type: 'WebhookEndpoint', payloads: /Webhook/, fields: ['webhookEndpoints', 'limits'] },
  role: { type: null, payloads: /Role/, fields: ['members'], roots: ['roles', 'permissions'] },
  org: { type: 'Organization', payloads: /Organization|LegalHold/, fields: [], roots: ['organizations'] },
  limit: { type: null, payloads: /^$/, fields: ['limits'] },
};

/** The organization that is open: its lists are the ones on the screen. */
let openOrganization: string | null = null;
export function keepOpen(organizationId: string | null): void {
  openOrganization = organizationId;
}

export function cache() {
  return cacheExchange({
    schema: schema as NonNullable<Parameters<typeof cacheExchange>[0]>['schema'],
    keys: {
      // Without an id of their own they live inside what holds them.
      ActivityDay: () => null,
      Limit: () => null,
      LegalHold: () => null,
      OwnershipOffer: () => null,
      PermissionDescription: () => null,
      InvitationPreview: () => null,
      RemovalImpact: () => null,
      Viewer: () => null,
      WebhookAttempt: () => null,
      WebhookEventType: (type) => (type.name as string | undefined) ?? null,
      // Each organization may name a role of its own alike.
      Role: () => null,
      AccessRecord: () => null,
      AuditCheckpoint: () => null,
      AuditConsistencyProof: () => null,
      AuditInclusionProof: () => null,
      AuditStatus: () => null,
      AuditAlarm: () => null,
      AuditRound: () => null,
      AuditWitness: () => null,
      AuditFeedItem: () => null,
      Projection: () => null,
      ProjectionPartition: () => null,
      ProjectionRebuild: () => null,
      ParkedStream: () => null,
      OrganizationSnapshot: () => null,
      MemberSnapshot: () => null,
      InvitationSnapshot: () => null,
      ProjectSnapshot: () => null,
      // An actor's label is as it was at the time of the event.
      UserActor: () => null,
      OperatorActor: () => null,
      TokenActor: () => null,
      SystemActor: () => null,
    },
    updates: {
      Mutation: new Proxy({}, { get: () => afterCommand, has: () => true, ownKeys: () => [] }) as never,
      Subscription: {
        auditEvents: (result, args, cache) => {
          const { event } = result.auditEvents as { event: { action: string; subjectId: string } | null };
          if (event) stale(cache, event.action.split('.')[0] ?? '', args.organizationId as string, event.subjectId);
        },
      },
    },
  });
}

function afterCommand(result: Record<string, unknown>, _args: unknown, cache: Cache): void {
  for (const payload of Object.values(result) as ({ __typename?: string; errors?: unknown[] } | null)[]) {
    if (!payload?.__typename || payload.errors?.length) continue;
    for (const [kind, { payloads }] of Object.entries(STALE)) {
      if (payloads.test(payload.__typename)) stale(cache, kind, openOrganization, null);
    }
  }
}

function stale(cache: Cache, kind: string, organizationId: string | null, subjectId: string | null): void {
  const row = STALE[kind];
  for (const name of row?.roots ?? []) invalidate(cache, 'Query', [name]);
  if (subjectId && row?.type) cache.invalidate({ __typename: row.type, id: subjectId });
  if (organizationId) {
    invalidate(cache, { __typename: 'Organization', id: organizationId }, [...(row?.fields ?? []), 'auditTrail', 'accessTrail', 'activity']);
  }
}

function invalidate(cache: Cache, entity: Entity | 'Query', names: readonly string[]): void {
  for (const { fieldName, arguments: args } of cache.inspectFields(entity as Entity)) {
    if (names.includes(fieldName)) cache.invalidate(entity as Entity, fieldName, args);
  }
}
