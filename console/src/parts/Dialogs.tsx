import { type FormEvent, type ReactNode, useState } from 'react';
import { Dialog, Heading, Modal, ModalOverlay } from 'react-aria-components';
import type { Fault, Refusal } from '@tenancy/client';
import { useStanding } from '../shell/standing.tsx';
import { useText } from '../texts/texts.tsx';
import { Button } from './Button.tsx';
import { Field } from './Field.tsx';
import { Refusals } from './Notice.tsx';
import css from './parts.module.css';

interface Commanding {
  refusals: readonly Refusal[];
  fault: Fault | null;
  pending: boolean;
}

/**
 * A dialog with a form. `act` gets the form's fields by name and says whether it is done; then the dialog closes.
 * Operators who act on an organization that is not theirs are asked for a reason: it is `fields.reason`.
 */
export function FormDialog({
  title,
  text,
  action,
  danger = false,
  command,
  act,
  close,
  fields = [],
  children,
}: {
  title: string;
  text?: ReactNode;
  /** The button's text: what it does, not “OK”. Null where nothing can be done: then the dialog only says so. */
  action: string | null;
  danger?: boolean;
  command: Commanding;
  act: (fields: Record<string, string>) => Promise<boolean>;
  close: () => void;
  /** The names of the fields in `children`: refusals about them stand there. */
  fields?: readonly string[];
  children?: ReactNode;
}) {
  const t = useText();
  const { actsAsOperator } = useStanding();
  const submit = async (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    if (command.pending) return;
    const values = Object.fromEntries(
      [...new FormData(event.currentTarget)].map(([name, value]) => [name, typeof value === 'string' ? value : '']),
    );
    if (await act(values)) close();
  };
  return (
    <ModalOverlay className={css.overlay!} isOpen onOpenChange={(open) => !open && close()} isDismissable={!command.pending}>
      <Modal className={css.modal!}>
        <Dialog className={css.dialog!} role={danger ? 'alertdialog' : 'dialog'}>
          <Heading slot="title" level={2}>
            {title}
          </Heading>
          {text ? <div className={css.dialogText}>{text}</div> : null}
          <form className={css.form} noValidate onSubmit={(event) => void submit(event)}>
            {children}
            {actsAsOperator && action !== null ? (
              <Field name="reason" label={t('act.reason')} hint={t('act.reason.hint')} refusals={command.refusals} isRequired />
            ) : null}
            <Refusals of={command} except={[...fields, ...(actsAsOperator ? ['reason'] : [])]} />
            <div className={css.dialogFoot}>
              <Button onPress={close} isDisabled={command.pending}>
                {t(action === null ? 'act.close' : 'act.cancel')}
              </Button>
              {action === null ? null : (
                <Button type="submit" look={danger ? 'danger' : 'primary'} isPending={command.pending}>
                  {action}
                </Button>
              )}
            </div>
          </form>
        </Dialog>
      </Modal>
    </ModalOverlay>
  );
}

/** Asks before something that is hard to take back. What can be undone needs no question: show a toast with `undo`. */
export function ConfirmDialog(props: Omit<Parameters<typeof FormDialog>[0], 'danger' | 'fields'>) {
  return <FormDialog {...props} danger />;
}

/**
 * Opens another dialog, once this one is gone and has given back the focus: so the other one returns it to the same place.
 */
export function afterDialog(open: () => void): void {
  // Notices are dialogs too, and keep nobody from the page.
  const dialogs = '[role="dialog"], [role="alertdialog"]:not([aria-modal="false"])';
  const look = () => {
    if (document.querySelector(dialogs)) requestAnimationFrame(look);
    // The focus returns in the frame after that.
    else requestAnimationFrame(() => requestAnimationFrame(open));
  };
  requestAnimationFrame(look);
}

/** Which dialog is open, and about what: `const dialog = useDialog<Project>()`. */
export function useDialog<Subject = null>() {
  const [open, setOpen] = useState<{ name: string; subject: Subject } | null>(null);
  return {
    open: (name: string, subject: Subject) => setOpen({ name, subject }),
    close: () => setOpen(null),
    /** The name of the one that is open. */
    current: open?.name ?? null,
    /** The subject, while the dialog of this name is open. */
    of: (name: string): { subject: Subject } | null => (open?.name === name ? open : null),
  };
}
