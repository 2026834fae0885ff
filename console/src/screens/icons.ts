/** The icons of the navigation. */
export { FolderKanban, LayoutDashboard, MailPlus, Settings, ShieldCheck, Users } from 'lucide-react';
