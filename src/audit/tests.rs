//! The tree against others' cases, an independent implementation, and its own definition.
#![allow(clippy::unwrap_used, clippy::panic)]

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ct_merkle::mem_backed_tree::MemoryBackedTree;
use ed25519_dalek::SigningKey;
use proptest::prelude::*;
use serde_json::Value;
use sha2::Sha256;

use super::merkle::*;
use super::note::*;

/// MTH of RFC 6962, 2.1, word for word.
fn definition(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => empty_root(),
        [leaf] => *leaf,
        leaves => {
            let mut k = 1;
            while k * 2 < leaves.len() {
                k *= 2;
            }
            node_hash(&definition(&leaves[..k]), &definition(&leaves[k..]))
        }
    }
}

fn leaves(count: usize) -> Vec<Hash> {
    (0..count).map(|number| leaf_hash(&number.to_be_bytes())).collect()
}

fn path(leaves: &[Hash], ranges: &[Range]) -> Vec<Hash> {
    let root = |(height, first): (u32, u64)| {
        let first = usize::try_from(first).unwrap();
        definition(&leaves[first..first + (1 << height)])
    };
    let range = |range: &Range| {
        let subtrees: Vec<Hash> = complete_subtrees(*range).into_iter().map(root).collect();
        join(&subtrees).unwrap()
    };
    ranges.iter().map(range).collect()
}

fn grown(leaves: &[Hash]) -> Frontier {
    let mut frontier = Frontier::default();
    leaves.iter().for_each(|leaf| frontier.push(*leaf, |_, _| {}));
    frontier
}

fn flipped(hash: &Hash, bit: usize) -> Hash {
    let mut other = *hash;
    other[bit / 8 % 32] ^= 1 << (bit % 8);
    other
}

#[test]
fn roots_are_those_of_the_definition_and_of_the_published_examples() {
    // The inputs of certificate-transparency's own tests.
    let inputs: [&[u8]; 8] = [
        b"",
        b"\x00",
        b"\x10",
        b"\x20\x21",
        b"\x30\x31",
        b"\x40\x41\x42\x43",
        b"\x50\x51\x52\x53\x54\x55\x56\x57",
        b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
    ];
    let hashes: Vec<Hash> = inputs.iter().map(|input| leaf_hash(input)).collect();
    let hex = |hash: Hash| hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(hex(grown(&[]).root()), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_eq!(hex(grown(&hashes[..1]).root()), "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d");
    assert_eq!(hex(grown(&hashes).root()), "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328");
    for count in 0..70 {
        assert_eq!(grown(&leaves(count)).root(), definition(&leaves(count)), "{count}");
    }
}

#[test]
fn what_completes_subtrees_is_told_once_each() {
    let leaves = leaves(300);
    let mut told = vec![];
    let mut frontier = Frontier::default();
    for leaf in &leaves {
        let index = frontier.size();
        frontier.push(*leaf, |height, root| told.push((height, index >> height, *root)));
    }
    for (height, number, root) in &told {
        let first = usize::try_from(number << height).unwrap();
        assert_eq!(*root, definition(&leaves[first..first + (1 << height)]), "{height} {number}");
    }
    let expected: u64 = (0..9).map(|height| 300 >> height).sum();
    assert_eq!(told.len() as u64, expected);
}

fn bytes(value: &Value) -> Vec<u8> {
    STANDARD.decode(value.as_str().unwrap_or_default()).unwrap()
}

/// Bytes of another length than a hash are the same as themselves, and nothing else.
fn hash(value: &Value) -> Hash {
    bytes(value).try_into().unwrap_or_else(|other: Vec<u8>| leaf_hash(&other))
}

fn proof_of(case: &Value) -> Vec<Hash> {
    case["proof"].as_array().map_or(vec![], |path| path.iter().map(hash).collect())
}

/// The case, judged; `None` where it is of no known kind.
fn judge(kind: &str, case: &Value) -> Option<bool> {
    let number = |name: &str| case[name].as_u64().unwrap_or(u64::MAX);
    let hash = |name: &str| hash(&case[name]);
    let whole = ["leafHash", "root"].iter().all(|name| case[*name].is_null() || bytes(&case[*name]).len() == 32);
    let size = || number("end").checked_sub(number("start"));
    Some(match kind {
        "inclusion" | "subtreeinclusion" if !whole => false,
        "inclusion" => {
            verify_inclusion(number("leafIdx"), number("treeSize"), &hash("leafHash"), &proof_of(case), &hash("root"))
        }
        "consistency" => {
            verify_consistency(number("size1"), number("size2"), &hash("root1"), &hash("root2"), &proof_of(case))
        }
        "subtreeinclusion" => size().is_some_and(|size| {
            let aligned = size.checked_next_power_of_two().is_some_and(|power| number("start").is_multiple_of(power));
            let index = number("leafIdx").checked_sub(number("start"));
            aligned
                && index.is_some_and(|index| {
                    verify_inclusion(index, size, &hash("leafHash"), &proof_of(case), &hash("root"))
                })
        }),
        "subtreeconsistency" => verify_subtree(
            (number("start"), number("end")),
            number("size"),
            &hash("root1"),
            &hash("root2"),
            &proof_of(case),
        ),
        _ => return None,
    })
}

/// The cases of github.com/transparency-dev/merkle, a line each.
#[test]
fn verification_judges_as_others_do() {
    let cases = include_str!("../../tests/merkle/cases.ndjson").lines();
    let cases: Vec<Value> = cases.map(|line| serde_json::from_str(line).unwrap()).collect();
    let is_wrong = |case: &&Value| {
        let judged = judge(case["kind"].as_str().unwrap(), &case["case"]).unwrap();
        judged != (case["case"]["wantErr"] == false)
    };
    let wrong: Vec<&Value> = cases.iter().filter(is_wrong).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(cases.len(), 518);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn proofs_are_an_independent_implementations_and_nothing_else_passes(
        size in 1_usize..=4_096, part in 0.0..1.0_f64, older in 0.0..=1.0_f64, bit in 0_usize..256, wrong in 0_usize..4_096,
    ) {
        let mut other: MemoryBackedTree<Sha256, Vec<u8>> = MemoryBackedTree::new();
        (0..size).for_each(|number| other.push(number.to_be_bytes().to_vec()));
        let leaves = leaves(size);
        let (frontier, root) = (grown(&leaves), definition(&leaves));
        prop_assert_eq!(frontier.root(), root);
        let others = other.root();
        prop_assert_eq!(&root[..], others.as_bytes().as_slice());

        let index = (part * size as f64) as usize;
        let (place, tree) = (index as u64, size as u64);
        let proof = path(&leaves, &inclusion_ranges(place, tree).unwrap());
        let expected = other.prove_inclusion(index);
        prop_assert_eq!(proof.concat(), expected.as_bytes());
        prop_assert!(verify_inclusion(place, tree, &leaves[index], &proof, &root));
        prop_assert!(!verify_inclusion(place, tree, &flipped(&leaves[index], bit), &proof, &root));
        prop_assert!(!verify_inclusion(place, tree, &leaves[index], &proof, &flipped(&root, bit)));
        prop_assert_eq!(verify_inclusion(wrong as u64, tree, &leaves[index], &proof, &root), wrong == index);
        if !proof.is_empty() {
            let mut broken = proof.clone();
            let at = wrong % proof.len();
            broken[at] = flipped(&broken[at], bit);
            prop_assert!(!verify_inclusion(place, tree, &leaves[index], &broken, &root));
            prop_assert!(!verify_inclusion(place, tree, &leaves[index], &proof[1..], &root));
        }

        let old = 1 + (older * (size - 1) as f64) as usize;
        let before = definition(&leaves[..old]);
        let proof = path(&leaves, &consistency_ranges(old as u64, tree).unwrap());
        if old < size {
            let expected = other.prove_consistency(size - old);
            prop_assert_eq!(proof.concat(), expected.as_bytes());
        }
        prop_assert!(verify_consistency(old as u64, tree, &before, &root, &proof));
        prop_assert!(!verify_consistency(old as u64, tree, &flipped(&before, bit), &root, &proof));
        prop_assert!(!verify_consistency(old as u64, tree, &before, &flipped(&root, bit), &proof));
        let other_size = 1 + wrong as u64 % tree;
        prop_assert_eq!(verify_consistency(other_size, tree, &before, &root, &proof), other_size == old as u64);
    }

    #[test]
    fn a_checkpoint_survives_text_and_a_flipped_bit_is_found(size: u64, root: [u8; 32], seed: [u8; 32], at: prop::sample::Index, bit in 0_u32..7) {
        let signer = Signer::new("example.com/audit", SigningKey::from_bytes(&seed)).unwrap();
        let checkpoint = Checkpoint { origin: "example.com/audit/org_1".into(), size, root };
        let note = sign(&checkpoint.to_string(), std::slice::from_ref(&signer));
        let keys = [signer.verifier().to_string().parse::<VerifierKey>().unwrap()];
        prop_assert_eq!(open(&note, &keys).unwrap().parse::<Checkpoint>(), Ok(checkpoint));
        let mut bytes = note.clone().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(altered) = String::from_utf8(bytes) {
            prop_assert!(open(&altered, &keys).is_err(), "{}", altered);
        }
    }
}

#[test]
fn of_trees_that_do_not_fit_nothing_is_proven() {
    let leaves = leaves(5);
    let root = definition(&leaves);
    assert_eq!((inclusion_ranges(5, 5), inclusion_ranges(0, 0)), (None, None));
    assert_eq!((consistency_ranges(0, 5), consistency_ranges(6, 5)), (None, None));
    assert_eq!(consistency_ranges(5, 5), Some(vec![]));
    assert!(!verify_consistency(0, 5, &empty_root(), &root, &[]));
    assert!(verify_consistency(5, 5, &root, &root, &[]));
    assert!(!verify_consistency(5, 5, &root, &root, &[root]));
    assert_eq!(Frontier::new(5, vec![root]), None);
}

#[test]
fn opens_the_note_that_go_publishes() {
    // golang.org/x/mod/sumdb/note, its example.
    let key: VerifierKey = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW".parse().unwrap();
    let text = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
    let line = "\u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
    assert_eq!(open(&format!("{text}\n{line}"), std::slice::from_ref(&key)), Ok(text));
    let enoch = "\u{2014} EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n";
    assert_eq!(open(&format!("{text}\n{enoch}{line}"), std::slice::from_ref(&key)), Ok(text));
    assert!(matches!(open(&format!("{text}\n{enoch}"), std::slice::from_ref(&key)), Err(Invalid::NotSigned(_))));
    assert_eq!(key.to_string(), "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW");
    let altered = format!("{}\n{line}", text.replace("your", "my"));
    assert_eq!(open(&altered, &[key]), Err(Invalid::BadSignature("PeterNeumann".into())));
}

#[test]
fn refuses_what_is_no_key_note_or_checkpoint() {
    let good = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    let bad = [
        "",
        "x",
        "x+y",
        &good.replace("c74f20a3", "c74f20a4"),
        &good.replace("Peter", "Pet er"),
        &good.replace("+AR", "+BR"),
        &good[..60],
    ];
    for text in bad {
        assert!(text.parse::<VerifierKey>().is_err(), "{text}");
    }
    for note in [
        "",
        "a\n",
        "a\n\n",
        "a\n\nb\n",
        "a\n\n\u{2014} x y\n",
        "a\n\n\u{2014} x YQ==\n",
        "a\r\n\n\u{2014} x YWFhYWE=\n",
        "a\n\n\u{2014} x YWFhYWE=",
    ] {
        assert!(matches!(open(note, &[]), Err(Invalid::Note(_))), "{note:?}");
    }
    let root = STANDARD.encode([7; 32]);
    for text in [
        "",
        "a\n1\n",
        "a\n01\nx\n",
        &format!("\n1\n{root}\n"),
        &format!("a\n-1\n{root}\n"),
        &format!("a\n+1\n{root}\n"),
        &format!("a\n1\n{root}"),
        &format!("a\n1\n{root}\n\n"),
        "a\n1\nAAAA\n",
    ] {
        assert!(text.parse::<Checkpoint>().is_err(), "{text:?}");
    }
    assert!(format!("a\n1\n{root}\nan extension\n").parse::<Checkpoint>().is_ok());
    assert!(Signer::new("two words", SigningKey::from_bytes(&[1; 32])).is_err());
}
