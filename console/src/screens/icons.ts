/** The icons of the navigation. */
export { Eye, FolderKanban, Gauge, KeyRound, LayoutDashboard, Webhook } from 'lucide-react';
