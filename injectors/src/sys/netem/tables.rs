//! How delays scatter: the tables that the kernel draws from, computed instead of copied.
//!
//! A table has 4,096 values at evenly spaced probabilities; 8,192 stands for one jitter. The formulas are those behind
//! the tables of iproute2, checked against its files in the tests.

use serde::{Deserialize, Serialize};

/// Values of a table.
const SIZE: usize = 4096;
/// One jitter.
const SCALE: f64 = 8192.0;

/// A shape of scatter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// Evenly within the jitter: what the kernel does without a table.
    Uniform,
    /// The bell curve.
    Normal,
    /// Long-tailed: many a little shorter, few much longer.
    Pareto,
    /// A quarter normal, three quarters Pareto.
    ParetoNormal,
}

impl Shape {
    /// The kernel's table.
    pub fn table(self) -> Vec<i16> {
        let value = match self {
            Self::Uniform => |index| ((2 * index + 1) as f64 / SIZE as f64 - 1.0) * SCALE,
            Self::Normal => normal,
            Self::Pareto => pareto,
            Self::ParetoNormal => |index| 0.25 * normal(index) + 0.75 * pareto(index),
        };
        let clamped = |index| value(index).clamp(f64::from(i16::MIN), f64::from(i16::MAX)).round() as i16;
        (0..SIZE).map(clamped).collect()
    }
}

/// The normal quantile in the first eighth of each step.
fn normal(index: usize) -> f64 {
    if index == 0 {
        return f64::from(i16::MIN);
    }
    normal_quantile((index as f64 + 0.125) / SIZE as f64) * SCALE
}

/// The quantile of Pareto with exponent 3, its mean of 3/2 moved to 0 and its spread to that of the others.
fn pareto(index: usize) -> f64 {
    let rest = 1.0 - index as f64 / SIZE as f64;
    ((rest.powf(-1.0 / 3.0) - 1.5) * (4.0 / 3.0) * SCALE).min(f64::from(i16::MAX))
}

/// The standard normal quantile, right to 16 digits: Wichura, Algorithm AS 241 (PPND16), Applied Statistics 37, 1988.
fn normal_quantile(p: f64) -> f64 {
    let q = p - 0.5;
    if q.abs() <= 0.425 {
        let r = 0.180_625 - q * q;
        return q * ratio(r, &MIDDLE);
    }
    let r = (-(if q < 0.0 { p } else { 1.0 - p }).ln()).sqrt();
    let tail = if r <= 5.0 { ratio(r - 1.6, &NEAR) } else { ratio(r - 5.0, &FAR) };
    tail.copysign(q)
}

/// Two polynomials of degree 7, one over the other; the coefficients begin with the constant.
fn ratio(r: f64, [over, under]: &[[f64; 8]; 2]) -> f64 {
    let at = |coefficients: &[f64; 8]| coefficients.iter().rev().fold(0.0, |sum, c| sum * r + c);
    at(over) / at(under)
}

const MIDDLE: [[f64; 8]; 2] = [
    [
        3.387_132_872_796_366_5,
        133.141_667_891_784_38,
        1_971.590_950_306_551_3,
        13_731.693_765_509_46,
        45_921.953_931_549_87,
        67_265.770_927_008_7,
        33_430.575_583_588_13,
        2_509.080_928_730_122_7,
    ],
    [
        1.0,
        42.313_330_701_600_91,
        687.187_007_492_057_9,
        5_394.196_021_424_751,
        21_213.794_301_586_597,
        39_307.895_800_092_71,
        28_729.085_735_721_943,
        5_226.495_278_852_854,
    ],
];
const NEAR: [[f64; 8]; 2] = [
    [
        1.423_437_110_749_683_5,
        4.630_337_846_156_546,
        5.769_497_221_460_691,
        3.647_848_324_763_204_5,
        1.270_458_252_452_368_4,
        0.241_780_725_177_450_6,
        0.022_723_844_989_269_184,
        7.745_450_142_783_414e-4,
    ],
    [
        1.0,
        2.053_191_626_637_759,
        1.676_384_830_183_803_8,
        0.689_767_334_985_1,
        0.148_103_976_427_480_08,
        0.015_198_666_563_616_457,
        5.475_938_084_995_345e-4,
        1.050_750_071_644_416_9e-9,
    ],
];
const FAR: [[f64; 8]; 2] = [
    [
        6.657_904_643_501_103,
        5.463_784_911_164_114,
        1.784_826_539_917_291_3,
        0.296_560_571_828_504_87,
        0.026_532_189_526_576_124,
        0.001_242_660_947_388_078_4,
        2.711_555_568_743_487_6e-5,
        2.010_334_399_292_288_1e-7,
    ],
    [
        1.0,
        0.599_832_206_555_888,
        0.136_929_880_922_735_8,
        0.014_875_361_290_850_615,
        7.868_691_311_456_133e-4,
        1.846_318_317_510_054_8e-5,
        1.421_511_758_316_446e-7,
        2.044_263_103_389_939_7e-15,
    ],
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quantiles_are_those_of_the_tables() {
        for (p, z) in [(0.5, 0.0), (0.975, 1.959_963_984_540_054), (0.999, 3.090_232_306_167_813_5)] {
            assert!((normal_quantile(p) - z).abs() < 1e-12, "{p}: {}", normal_quantile(p));
            assert!((normal_quantile(1.0 - p) + z).abs() < 1e-11);
        }
        assert!((normal_quantile(1e-20) + 9.262_340_089_798_408).abs() < 1e-9);
    }

    #[test]
    fn the_tables_are_those_of_iproute2_within_a_thousandth_of_the_jitter() {
        let folders = ["/usr/lib/x86_64-linux-gnu/tc", "/usr/lib/aarch64-linux-gnu/tc", "/usr/lib/tc"];
        let mut seen = 0;
        for (shape, name, most) in [
            (Shape::Normal, "normal", 1),
            (Shape::Pareto, "pareto", 0),
            (Shape::ParetoNormal, "paretonormal", 18),
        ] {
            let file = folders.iter().find_map(|f| std::fs::read_to_string(format!("{f}/{name}.dist")).ok());
            let Some(file) = file else {
                println!("iproute2's {name}.dist is not here: not compared");
                continue;
            };
            let lines = file.lines().filter(|line| !line.starts_with('#'));
            let theirs: Vec<i32> =
                lines.flat_map(|l| l.split_whitespace().map(|n| n.parse().unwrap())).collect();
            let ours = shape.table();
            assert_eq!(ours.len(), theirs.len());
            let apart = |(ours, theirs): (&i16, &i32)| (i32::from(*ours) - theirs).abs();
            let far: Vec<i32> = ours.iter().zip(&theirs).map(apart).collect();
            assert!(far.iter().all(|apart| *apart <= most), "{name}: {:?}", far.iter().max());
            assert!(far.iter().sum::<i32>() <= 4096 / 2, "{name}");
            seen += 1;
        }
        println!("{seen} tables compared");
    }

    #[test]
    fn every_shape_has_the_mean_of_its_delay_nearly_and_its_ends_in_order() {
        for shape in [Shape::Normal, Shape::Pareto, Shape::ParetoNormal] {
            let table = shape.table();
            let mean = table.iter().map(|value| f64::from(*value)).sum::<f64>() / table.len() as f64;
            assert!(mean.abs() < 0.05 * SCALE, "{shape:?}: {mean}");
            assert!(table.is_sorted(), "{shape:?}");
        }
    }
}
