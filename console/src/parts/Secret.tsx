import { Check, Copy } from 'lucide-react';
import { useState } from 'react';
import { Dialog, Heading, Input, Label, Modal, ModalOverlay, TextField } from 'react-aria-components';
import { useText } from '../texts/texts.tsx';
import { Button } from './Button.tsx';
import { Notice } from './Notice.tsx';
import parts from './parts.module.css';
import css from './secret.module.css';

export interface Secret {
  title: string;
  text: string;
  value: string;
}

/** Shows a secret this once. It closes by its button only, so that nobody loses the secret by a stray click. */
export function SecretDialog({ secret: { title, text, value }, close }: { secret: Secret; close: () => void }) {
  const t = useText();
  const [copied, setCopied] = useState<boolean | null>(null);
  const copy = () =>
    navigator.clipboard.writeText(value).then(
      () => setCopied(true),
      // The browser keeps the clipboard shut: the field can still be selected.
      () => setCopied(false),
    );
  return (
    <ModalOverlay className={parts.overlay!} isOpen isKeyboardDismissDisabled>
      <Modal className={parts.modal!}>
        <Dialog className={parts.dialog!}>
          <Heading slot="title" level={2}>
            {title}
          </Heading>
          <Notice tone="warn">
            <p>{text}</p>
          </Notice>
          <TextField className={parts.field!} value={value} isReadOnly autoFocus>
            <Label className={parts.label!}>{t('secret.label')}</Label>
            <div className={css.row}>
              <Input
                className={`${parts.input} ${css.value}`}
                onFocus={(event) => event.currentTarget.select()}
                autoComplete="off"
                spellCheck="false"
              />
              <Button onPress={() => void copy()}>
                {copied ? <Check size={14} aria-hidden /> : <Copy size={14} aria-hidden />}
                {t(copied ? 'secret.copied' : 'secret.copy')}
              </Button>
            </div>
            <span role="status" className={copied === false ? parts.fieldError : 'hidden-text'}>
              {copied === null ? '' : t(copied ? 'secret.copied' : 'secret.notCopied')}
            </span>
          </TextField>
          <div className={parts.dialogFoot}>
            <Button look="primary" onPress={close}>
              {t('secret.stored')}
            </Button>
          </div>
        </Dialog>
      </Modal>
    </ModalOverlay>
  );
}
