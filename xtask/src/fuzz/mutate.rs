//! Mutations: what happens to files in the wild (cut, doubled, swapped, damaged) and what careless code forgets.

/// Words that are special to somebody.
const SPECIAL: &[&[u8]] = &[
    b"",
    b"\0",
    b"\n",
    b"\r\n",
    b"\t",
    b" ",
    b"\\",
    b"\\\n",
    b"\"",
    b"'",
    b"(",
    b")",
    b"[",
    b"]",
    b"{",
    b"}",
    b"[{",
    b"/*",
    b"*/",
    b"//",
    b"#",
    b"$(",
    b"$(shell ",
    b"=",
    b":=",
    b",",
    b";",
    b":",
    b"\xff",
    b"\xc3\xbc",
    b"\xe2\x80\x98",
    b"0",
    b"-1",
    b"65536",
    b"4294967295",
    b"4294967296",
    b"18446744073709551615",
    b"99999999999999999999999999",
    b"0xffffffff",
    b"..",
    b"../../etc",
    b"\x1b[31m",
    b"\x00\x00\x00\xff",
    b"\xff\xff\xff\x7f",
];

/// A stream of inputs from a corpus.
pub struct Mutator<'c> {
    corpus: &'c [Vec<u8>],
    state: u64,
}

impl<'c> Mutator<'c> {
    /// The same seed and corpus give the same stream.
    pub fn new(corpus: &'c [Vec<u8>], seed: u64) -> Self {
        Self {
            corpus,
            state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        }
    }

    /// The next input: one of the corpus, changed in one to eight places.
    pub fn next_input(&mut self) -> Vec<u8> {
        let mut input = self.pick_of_corpus();
        for _ in 0..=self.below(8) {
            self.change(&mut input);
        }
        input
    }

    /// Marsaglia's xorshift with a multiplication at the end.
    fn random(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        let limit = limit.max(1) as u64;
        usize::try_from(self.random() % limit).unwrap_or(0)
    }

    fn pick_of_corpus(&mut self) -> Vec<u8> {
        let at = self.below(self.corpus.len());
        self.corpus.get(at).cloned().unwrap_or_default()
    }

    /// A short range of the input.
    fn range(&mut self, input: &[u8]) -> std::ops::Range<usize> {
        let start = self.below(input.len() + 1);
        let most = [4, 16, 256][self.below(3)];
        let end = start + self.below(most.min(input.len() - start) + 1);
        start..end
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let range = self.range(input);
        match self.below(8) {
            0 => self.flip(input),
            1 => input.truncate(range.start),
            2 => drop(input.drain(range)),
            3 => self.repeat(input, range),
            4 => self.splice(input, range),
            _ => {
                let word = SPECIAL[self.below(SPECIAL.len())];
                drop(input.splice(range, word.iter().copied()));
            }
        }
    }

    fn flip(&mut self, input: &mut [u8]) {
        let (at, bit) = (self.below(input.len()), self.below(8));
        if let Some(byte) = input.get_mut(at) {
            *byte ^= 1 << bit;
        }
    }

    /// Seldom very often: what recurses must bear depth.
    fn repeat(&mut self, input: &mut Vec<u8>, range: std::ops::Range<usize>) {
        let piece = input[range.clone()].to_vec();
        let times = if self.below(64) == 0 {
            20_000 / piece.len().max(1)
        } else {
            1 + self.below(8)
        };
        drop(input.splice(range.end..range.end, piece.repeat(times)));
    }

    fn splice(&mut self, input: &mut Vec<u8>, range: std::ops::Range<usize>) {
        let other = self.pick_of_corpus();
        let piece = other[self.range(&other)].to_vec();
        drop(input.splice(range, piece));
    }
}
