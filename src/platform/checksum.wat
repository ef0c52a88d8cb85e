;; Sums little-endian 16-bit words for the Internet checksum (RFC 1071), 16 bytes at a time.
;; checksum.ts holds the compiled bytes; checksum.test.ts compiles this again and compares.
(module
  (import "env" "memory" (memory 1))
  ;; sum(offset, length, accumulator): the words at [offset, offset + length) added to the accumulator
  ;; and folded to 16 bits; an odd last byte counts as the low half of a word.
  (func (export "sum") (param $at i32) (param $left i32) (param $acc i32) (result i32)
    (local $lanes v128) (local $end i32) (local $block i32) (local $sum i64)
    (local.set $sum (i64.extend_i32_u (local.get $acc)))
    (local.set $end (i32.add (local.get $at) (i32.and (local.get $left) (i32.const -16))))
    (block $whole_done
      (loop $blocks
        (br_if $whole_done (i32.ge_u (local.get $at) (local.get $end)))
        ;; a lane takes two words per step: 256 KiB cannot overflow it
        (local.set $block (i32.add (local.get $at) (i32.const 262144)))
        (if (i32.gt_u (local.get $block) (local.get $end))
          (then (local.set $block (local.get $end))))
        (local.set $lanes (v128.const i32x4 0 0 0 0))
        (loop $step
          (local.set $lanes
            (i32x4.add (local.get $lanes)
              (i32x4.extadd_pairwise_i16x8_u (v128.load align=1 (local.get $at)))))
          (local.set $at (i32.add (local.get $at) (i32.const 16)))
          (br_if $step (i32.lt_u (local.get $at) (local.get $block))))
        (local.set $lanes
          (i64x2.add
            (i64x2.extend_low_i32x4_u (local.get $lanes))
            (i64x2.extend_high_i32x4_u (local.get $lanes))))
        (local.set $sum
          (i64.add (local.get $sum)
            (i64.add
              (i64x2.extract_lane 0 (local.get $lanes))
              (i64x2.extract_lane 1 (local.get $lanes)))))
        (br $blocks)))
    (local.set $left (i32.and (local.get $left) (i32.const 15)))
    (block $words_done
      (loop $words
        (br_if $words_done (i32.lt_u (local.get $left) (i32.const 2)))
        (local.set $sum (i64.add (local.get $sum) (i64.load16_u align=1 (local.get $at))))
        (local.set $at (i32.add (local.get $at) (i32.const 2)))
        (local.set $left (i32.sub (local.get $left) (i32.const 2)))
        (br $words)))
    (if (local.get $left)
      (then (local.set $sum (i64.add (local.get $sum) (i64.load8_u (local.get $at))))))
    ;; below 2^42 at first: three folds leave 16 bits
    (local.set $sum (i64.add (i64.and (local.get $sum) (i64.const 0xffff)) (i64.shr_u (local.get $sum) (i64.const 16))))
    (local.set $sum (i64.add (i64.and (local.get $sum) (i64.const 0xffff)) (i64.shr_u (local.get $sum) (i64.const 16))))
    (local.set $sum (i64.add (i64.and (local.get $sum) (i64.const 0xffff)) (i64.shr_u (local.get $sum) (i64.const 16))))
    (i32.wrap_i64 (local.get $sum))))
