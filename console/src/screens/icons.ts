/** The icons of the navigation. */
export { FolderKanban, Gauge, KeyRound, LayoutDashboard, Webhook } from 'lucide-react';
