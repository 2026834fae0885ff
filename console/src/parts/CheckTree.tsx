import { Check, ChevronRight, Minus } from 'lucide-react';
import { useId, useState } from 'react';
import { Button, Checkbox } from 'react-aria-components';
import type { Refusal } from '@tenancy/client';
import css from './checktree.module.css';
import { isAbout } from './Notice.tsx';
import parts from './parts.module.css';

export interface Leaf {
  value: string;
  text: string;
  note?: string;
  /** Why it cannot be chosen. */
  against?: string | null;
}

export interface Branch {
  id: string;
  text: string;
  leaves: readonly Leaf[];
}

/**
 * Several of many, in groups that are chosen as a whole too. Groups are folded until one looks into them. `whole` names
 * the value that stands for all of a group, such as `org.*`; without it the group's leaves are chosen one by one.
 */
export function CheckTree({
  name,
  label,
  hint,
  branches,
  value,
  whole,
  onChange,
  refusals = [],
}: {
  /** As the input's field is called: refusals about it stand here. */
  name: string;
  label: string;
  hint?: string;
  branches: readonly Branch[];
  value: ReadonlySet<string>;
  whole?: (branch: Branch) => string;
  onChange: (value: ReadonlySet<string>) => void;
  refusals?: readonly Refusal[];
}) {
  const labelId = useId();
  const hintId = useId();
  // What is chosen in part is unfolded from the start.
  const [unfolded, setUnfolded] = useState(
    () => new Set(branches.filter(({ leaves }) => leaves.some((leaf) => value.has(leaf.value))).map(({ id }) => id)),
  );
  const mine = refusals.filter(({ path }) => isAbout(path, name));
  const toggle = (values: readonly string[], on: boolean, without: readonly string[] = []) => {
    const next = new Set(value);
    for (const one of [...without, ...(on ? [] : values)]) next.delete(one);
    if (on) for (const one of values) next.add(one);
    onChange(next);
  };
  return (
    <div role="group" aria-labelledby={labelId} aria-describedby={hintId} className={parts.field}>
      <span id={labelId} className={parts.label}>
        {label}
      </span>
      <span id={hintId} className={mine.length > 0 ? parts.fieldError : parts.hint}>
        {mine.length > 0 ? mine.map(({ message }) => message).join(' ') : hint}
      </span>
      <div className={css.branches}>
        {branches.map((branch) => {
          const pattern = whole?.(branch);
          const all = pattern !== undefined && value.has(pattern);
          const open = branch.leaves.filter(({ against }) => !against);
          const chosen = all ? branch.leaves.length : branch.leaves.filter((leaf) => value.has(leaf.value)).length;
          const everything = all || (pattern === undefined && open.length > 0 && open.every((leaf) => value.has(leaf.value)));
          return (
            <div key={branch.id} className={css.branch}>
              <div className={css.head}>
                <Box
                  label={branch.text}
                  selected={everything}
                  indeterminate={!everything && chosen > 0}
                  disabled={open.length === 0}
                  onChange={(on) => {
                    const leaves = open.map((leaf) => leaf.value);
                    if (pattern === undefined) toggle(leaves, on);
                    else toggle([pattern], on, leaves);
                  }}
                />
                <Button
                  className={css.unfold!}
                  aria-expanded={unfolded.has(branch.id)}
                  onPress={() => {
                    const next = new Set(unfolded);
                    if (!next.delete(branch.id)) next.add(branch.id);
                    setUnfolded(next);
                  }}
                >
                  <span className="hidden-text">{`${branch.text} `}</span>
                  {`${chosen}/${branch.leaves.length}`}
                  <ChevronRight size={14} aria-hidden />
                </Button>
              </div>
              {unfolded.has(branch.id) ? (
              <div className={css.leaves}>
                {branch.leaves.map((leaf) => (
                  <Box
                    key={leaf.value}
                    label={leaf.text}
                    note={leaf.note}
                    against={leaf.against}
                    selected={all || value.has(leaf.value)}
                    disabled={Boolean(leaf.against)}
                    onChange={(on) => {
                      // One taken out of a whole group: the others stay, by name.
                      if (all) toggle(open.map((one) => one.value).filter((one) => one !== leaf.value), true, [pattern]);
                      else toggle([leaf.value], on);
                    }}
                  />
                ))}
              </div>
              ) : null}
            </div>
          );
        })}
      </div>
    </div>
  );
}

function Box({
  label,
  note,
  against,
  selected,
  indeterminate = false,
  disabled = false,
  onChange,
}: {
  label: string;
  note?: string | undefined;
  against?: string | null | undefined;
  selected: boolean;
  indeterminate?: boolean;
  disabled?: boolean;
  onChange: (on: boolean) => void;
}) {
  return (
    <Checkbox className={css.option!} isSelected={selected} isIndeterminate={indeterminate} isDisabled={disabled} onChange={onChange}>
      <span className={css.box} aria-hidden>
        {indeterminate ? <Minus size={12} /> : <Check size={12} />}
      </span>
      <span>
        <span className={css.name}>{label}</span>
        {note ? <span className={css.note}>{note}</span> : null}
        {against ? <span className={css.note}>{against}</span> : null}
      </span>
    </Checkbox>
  );
}
