import type { ReactNode } from 'react';
import { Button as AriaButton, type ButtonProps as AriaButtonProps, Dialog, DialogTrigger, Popover } from 'react-aria-components';
import { type Need, useMay } from '../shell/standing.tsx';
import { useText } from '../texts/texts.tsx';
import css from './parts.module.css';

type Look = 'plain' | 'primary' | 'danger' | 'quiet';

export interface ButtonProps extends Omit<AriaButtonProps, 'className' | 'style' | 'children'> {
  look?: Look;
  /** Square, for an icon; give `aria-label`. */
  icon?: boolean;
  small?: boolean;
  children: ReactNode;
}

export function buttonClass({ look = 'plain', icon = false, small = false }: Pick<ButtonProps, 'look' | 'icon' | 'small'>) {
  return [css.button, look !== 'plain' && css[look], icon && css.icon, small && css.small].filter(Boolean).join(' ');
}

export function Button({ look, icon, small, isPending = false, children, ...props }: ButtonProps) {
  // react-aria's own pending state leaves an announcement behind that names nothing once its dialog is closed.
  const still = isPending ? { onPress: undefined, type: 'button' as const } : {};
  return (
    <AriaButton {...props} {...still} className={buttonClass({ look, icon, small })}>
      {isPending ? <span className={css.spinner} aria-hidden /> : null}
      {children}
    </AriaButton>
  );
}

/**
 * A button that is only offered where it may be used. A missing permission hides it, unless `whenForbidden` says
 * otherwise. A status or a limit greys it out; pressing it then tells the reason, for keyboard, pointer and touch.
 */
export function PermissionButton({
  need,
  whenForbidden = 'hide',
  ...props
}: ButtonProps & { need: Need; whenForbidden?: 'hide' | 'explain' }) {
  const may = useMay()(need);
  const t = useText();
  if (may.allowed) return <Button {...props} />;
  if (may.because === 'permission' && whenForbidden === 'hide') return null;
  const { look, icon, small, children } = props;
  return (
    <DialogTrigger>
      <AriaButton
        className={buttonClass({ look, icon, small })}
        aria-label={props['aria-label']}
        // It stays in the tab order, so that its reason can be heard.
        ref={(element) => element?.setAttribute('aria-disabled', 'true')}
      >
        {children}
        <span className="hidden-text">{` (${may.reason})`}</span>
      </AriaButton>
      <Popover className={css.popover!}>
        <Dialog className={css.reason!} aria-label={t('act.notAllowed')}>
          <strong>{t('act.notAllowed')}</strong>
          <span>{may.reason}</span>
        </Dialog>
      </Popover>
    </DialogTrigger>
  );
}
