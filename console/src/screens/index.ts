import * as icons from './icons.ts';
import { type Screen, screen } from './screen.ts';

/** Every screen, in the order of the navigation. A new one is a folder, and a line here. */
export const screens: readonly Screen[] = [
  screen({ path: '', title: 'overview.title', group: 'organization', icon: icons.LayoutDashboard, need: { permission: 'organization:read' }, load: () => import('./overview/Overview.tsx') }),
  screen({ path: '/members', title: 'members.title', group: 'organization', icon: icons.Users, need: { permission: 'member:read' }, load: () => import('./members/Members.tsx') }),
  screen({ path: '/invitations', title: 'invitations.title', group: 'organization', icon: icons.MailPlus, need: { permission: 'invitation:read' }, load: () => import('./invitations/Invitations.tsx') }),
  screen({ path: '/projects', title: 'projects.title', group: 'organization', icon: icons.FolderKanban, need: { permission: 'project:read' }, load: () => import('./projects/Projects.tsx') }),
  screen({ path: '/webhooks', title: 'webhooks.title', group: 'organization', icon: icons.Webhook, need: { permission: 'webhook:read' }, load: () => import('./webhooks/Webhooks.tsx') }),
  screen({ path: '/webhooks/:endpointId', title: 'webhooks.endpoint', icon: icons.Webhook, need: { permission: 'webhook:read' }, load: () => import('./webhooks/Endpoint.tsx') }),
  screen({ path: '/plan', title: 'plan.title', group: 'organization', icon: icons.Gauge, need: { permission: 'organization:read' }, load: () => import('./plan/Plan.tsx') }),
  screen({ path: '/settings', title: 'settings.title', group: 'organization', icon: icons.Settings, need: { permission: 'organization:read' }, load: () => import('./settings/Settings.tsx') }),
  screen({ path: '/roles', title: 'roles.title', group: 'access', icon: icons.ShieldCheck, need: { permission: 'organization:read' }, load: () => import('./roles/Roles.tsx') }),
  screen({ path: '/tokens', title: 'tokens.title', group: 'access', icon: icons.KeyRound, need: { permission: 'token:read' }, load: () => import('./tokens/Tokens.tsx') }),
  screen({ path: '/audit', title: 'audit.title', group: 'audit', icon: icons.ScrollText, need: { permission: 'audit:read' }, load: () => import('./audit/Audit.tsx') }),
  screen({ path: '/verify', title: 'verify.title', group: 'audit', icon: icons.ShieldCheck, need: { permission: 'audit:read' }, load: () => import('./verify/Verify.tsx') }),
  screen({ path: '/as-of', title: 'asof.title', group: 'audit', icon: icons.History, need: { permission: 'audit:read' }, load: () => import('./asof/AsOf.tsx') }),
  screen({ path: '/access', title: 'access.title', group: 'audit', icon: icons.Eye, need: { permission: 'audit:read' }, load: () => import('./access/Access.tsx') }),
  screen({ path: '/invitations', title: 'mine.title', plane: 'person', icon: icons.MailPlus, load: () => import('./mine/Mine.tsx') }),
  screen({ path: '/new', title: 'settings.create', plane: 'person', icon: icons.Settings, load: () => import('./settings/Create.tsx') }),
  screen({ path: '', title: 'queue.title', group: 'operate', icon: icons.ClipboardCheck, load: () => import('./queue/Queue.tsx') }),
  screen({ path: '/organizations', title: 'organizations.title', group: 'operate', icon: icons.Building2, load: () => import('./organizations/Organizations.tsx') }),
  screen({ path: '/organizations/:organizationId', title: 'organization.title', plane: 'operate', icon: icons.Building2, load: () => import('./organization/Organization.tsx') }),
  screen({ path: '/users', title: 'users.title', group: 'operate', icon: icons.UsersRound, load: () => import('./users/Users.tsx') }),
  screen({ path: '/users/:userId', title: 'user.title', plane: 'operate', icon: icons.UsersRound, load: () => import('./user/User.tsx') }),
  screen({ path: '/audit', title: 'everyEvent.title', group: 'operate', icon: icons.ScrollText, load: () => import('./everyEvent/EveryEvent.tsx') }),
  screen({ path: '/installation', title: 'installation.title', group: 'operate', icon: icons.Activity, load: () => import('./installation/Installation.tsx') }),
];
