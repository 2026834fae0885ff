/** The icons of the navigation. */
export {
  Activity,
  Building2,
  ClipboardCheck,
  FolderKanban,
  History,
  LayoutDashboard,
  ScrollText,
  ShieldCheck,
  UsersRound,
} from 'lucide-react';
