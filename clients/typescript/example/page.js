// Lists the caller's organizations, invites somebody, and shows what happens in an organization while it happens.
// With a bundler this reads `from '@tenancy/client'`.
import { createClient, Fault, refusalFields } from './node_modules/@tenancy/client/dist/index.js';

const ORGANIZATIONS = 'query { viewer { memberships(first: 100) { nodes { roles organization { id name } } } } }';
const INVITE = `
  mutation Invite($input: InviteMemberInput!) {
    inviteMember(input: $input) { token invitation { id } errors { ...RefusalFields } }
  }
  ${refusalFields}`;

const connect = document.getElementById('connect');
const invite = document.getElementById('invite');
const choice = invite.elements.organization;
let tenancy;
let following;

const say = (text) => {
  document.getElementById('said').textContent = text;
};
const item = (list, text) => {
  const line = document.createElement('li');
  line.textContent = text;
  document.getElementById(list).append(line);
};
/** Runs what a form is for, and says why it failed. */
const on = (form, act) =>
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    act(form.elements).catch((error) => say(error instanceof Fault ? `${error.code}: ${error.message}` : String(error)));
  });

on(connect, async ({ service, token }) => {
  // The token stays in this variable. A page with a session of its own asks its server for a fresh one when `renew` is true.
  const held = token.value;
  tenancy = createClient({ url: `${service.value}/graphql`, token: async () => held });
  const { viewer } = await tenancy.query(ORGANIZATIONS, {});
  document.getElementById('organizations').replaceChildren();
  choice.replaceChildren();
  for (const { organization, roles } of viewer.memberships.nodes) {
    if (!organization) continue;
    item('organizations', `${organization.name} (${roles.join(', ')})`);
    choice.append(new Option(organization.name, organization.id));
  }
  document.getElementById('inside').hidden = false;
  say('Connected.');
  void follow();
});

on(invite, async ({ organization, email }) => {
  const outcome = await tenancy.mutate(INVITE, { input: { organizationId: organization.value, email: email.value, roles: ['member'] } });
  say(outcome.done ? `${email.value} is invited.` : outcome.refusals[0].message);
});

choice.addEventListener('change', () => void follow());

async function follow() {
  following?.abort();
  following = new AbortController();
  const { signal } = following;
  document.getElementById('feed').replaceChildren();
  if (!choice.value) return;
  try {
    // The feed goes on after every cut by itself.
    for await (const { event } of tenancy.follow({ organizationId: choice.value, signal })) {
      if (event) item('feed', `${new Date(event.recordedAt).toLocaleTimeString()} ${event.action}`);
    }
  } catch (error) {
    say(error instanceof Fault ? `${error.code}: ${error.message}` : String(error));
  }
}
