import * as icons from './icons.ts';
import { type Screen, screen } from './screen.ts';

/** Every screen, in the order of the navigation. A new one is a folder, and a line here. */
export const screens: readonly Screen[] = [
  screen({ path: '', title: 'overview.title', group: 'organization', icon: icons.LayoutDashboard, need: { permission: 'organization:read' }, load: () => import('./overview/Overview.tsx') }),
  screen({ path: '/projects', title: 'projects.title', group: 'organization', icon: icons.FolderKanban, need: { permission: 'project:read' }, load: () => import('./projects/Projects.tsx') }),
  screen({ path: '/members', title: 'members.title', group: 'organization', icon: icons.Users, need: { permission: 'member:read' }, load: () => import('./members/Members.tsx') }),
  screen({ path: '/invitations', title: 'invitations.title', group: 'organization', icon: icons.MailPlus, need: { permission: 'invitation:read' }, load: () => import('./invitations/Invitations.tsx') }),
  screen({ path: '/invitations', title: 'mine.title', plane: 'person', icon: icons.MailPlus, load: () => import('./mine/Mine.tsx') }),
  screen({ path: '/roles', title: 'roles.title', group: 'access', icon: icons.ShieldCheck, need: { permission: 'organization:read' }, load: () => import('./roles/Roles.tsx') }),
  screen({ path: '/settings', title: 'settings.title', group: 'organization', icon: icons.Settings, need: { permission: 'organization:read' }, load: () => import('./settings/Settings.tsx') }),
  screen({ path: '/new', title: 'settings.create', plane: 'person', icon: icons.Settings, load: () => import('./settings/Create.tsx') }),
];
