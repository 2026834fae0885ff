import * as icons from './icons.ts';
import { type Screen, screen } from './screen.ts';

/** Every screen, in the order of the navigation. A new one is a folder, and a line here. */
export const screens: readonly Screen[] = [
  screen({ path: '', title: 'overview.title', group: 'organization', icon: icons.LayoutDashboard, need: { permission: 'organization:read' }, load: () => import('./overview/Overview.tsx') }),
  screen({ path: '/projects', title: 'projects.title', group: 'organization', icon: icons.FolderKanban, need: { permission: 'project:read' }, load: () => import('./projects/Projects.tsx') }),
  screen({ path: '/webhooks', title: 'webhooks.title', group: 'organization', icon: icons.Webhook, need: { permission: 'webhook:read' }, load: () => import('./webhooks/Webhooks.tsx') }),
  screen({ path: '/webhooks/:endpointId', title: 'webhooks.endpoint', icon: icons.Webhook, need: { permission: 'webhook:read' }, load: () => import('./webhooks/Endpoint.tsx') }),
  screen({ path: '/tokens', title: 'tokens.title', group: 'access', icon: icons.KeyRound, need: { permission: 'token:read' }, load: () => import('./tokens/Tokens.tsx') }),
  screen({ path: '/plan', title: 'plan.title', group: 'organization', icon: icons.Gauge, need: { permission: 'organization:read' }, load: () => import('./plan/Plan.tsx') }),
  screen({ path: '/access', title: 'access.title', group: 'audit', icon: icons.Eye, need: { permission: 'audit:read' }, load: () => import('./access/Access.tsx') }),
];
