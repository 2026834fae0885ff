import { type Bytes, need, same, sha256 } from './bytes.ts';

const NODE = Uint8Array.of(1);

/** A Merkle tree of RFC 6962, section 2.1, as its complete subtrees from left to right. */
export class Tree {
  readonly #subtrees: Bytes[];
  constructor(
    public size: number,
    subtrees: readonly Bytes[],
  ) {
    this.#subtrees = [...subtrees];
  }

  /** Appends leaves. What can be hashed at once is, which keeps the engine's threads busy. */
  async add(leaves: readonly Bytes[]): Promise<void> {
    let at = 0;
    while (at < leaves.length) {
      // The largest complete subtree that may begin here.
      let width = 1;
      while (this.size % (width * 2) === 0 && at + width * 2 <= leaves.length) width *= 2;
      let level: Bytes[] = leaves.slice(at, at + width);
      while (level.length > 1) {
        const below = level;
        level = await Promise.all(
          Array.from({ length: below.length / 2 }, (_, pair) => sha256(NODE, below[pair * 2]!, below[pair * 2 + 1]!)),
        );
      }
      let root = level[0]!;
      let number = Math.floor(this.size / width);
      while (number % 2 === 1) {
        root = await sha256(NODE, this.#subtrees.pop()!, root);
        number = Math.floor(number / 2);
      }
      this.#subtrees.push(root);
      this.size += width;
      at += width;
    }
  }

  async root(): Promise<Bytes> {
    let root = this.#subtrees.at(-1);
    if (!root) return sha256();
    for (let at = this.#subtrees.length - 2; at >= 0; at--) root = await sha256(NODE, this.#subtrees[at]!, root);
    return root;
  }
}

/** Whether the proof leads from the leaf to the root: RFC 9162, section 2.1.3.2. */
export async function leadsTo(root: Bytes, index: bigint, size: bigint, leaf: Bytes, path: readonly Bytes[]): Promise<boolean> {
  need(index < size, 'pastTree');
  let [node, last, hash] = [index, size - 1n, leaf];
  for (const sibling of path) {
    if (last === 0n) return false;
    if ((node & 1n) === 1n || node === last) {
      hash = await sha256(NODE, sibling, hash);
      while (node !== 0n && (node & 1n) === 0n) {
        node >>= 1n;
        last >>= 1n;
      }
    } else {
      hash = await sha256(NODE, hash, sibling);
    }
    node >>= 1n;
    last >>= 1n;
  }
  return last === 0n && same(hash, root);
}
