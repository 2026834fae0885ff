import type { ReactNode } from 'react';
import { Menu as AriaMenu, MenuItem as AriaMenuItem, MenuTrigger, Popover, type MenuItemProps } from 'react-aria-components';
import { MoreHorizontal } from 'lucide-react';
import { type Need, useMay } from '../shell/standing.tsx';
import { Button } from './Button.tsx';
import css from './parts.module.css';

/** The menu of further actions behind “…”. */
export function ActionMenu({ label, children }: { label: string; children: ReactNode }) {
  return (
    <MenuTrigger>
      <Button look="quiet" icon small aria-label={label}>
        <MoreHorizontal size={16} aria-hidden />
      </Button>
      <Popover className={css.popover!} placement="bottom end">
        <AriaMenu className={css.menu!}>{children}</AriaMenu>
      </Popover>
    </MenuTrigger>
  );
}

/** An action of a menu, with the same rule as `PermissionButton`. `unless`: the screen's own reason against it. */
export function ActionItem({
  need,
  danger,
  unless = null,
  children,
  ...props
}: Omit<MenuItemProps, 'className' | 'children'> & { need?: Need; danger?: boolean; unless?: string | null; children: ReactNode }) {
  const may = useMay()(need ?? {});
  if (!may.allowed && may.because === 'permission') return null;
  const why = may.allowed ? unless : may.reason;
  return (
    <AriaMenuItem
      {...props}
      className={css.menuItem!}
      isDisabled={why !== null || props.isDisabled === true}
      textValue={typeof children === 'string' ? children : props.textValue ?? ''}
      {...(danger ? { 'data-danger': true } : {})}
    >
      <span>
        {children}
        {why === null ? null : <span className={css.menuNote}>{why}</span>}
      </span>
    </AriaMenuItem>
  );
}
