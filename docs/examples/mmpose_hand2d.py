# Train a top-down heatmap network of mmpose (1.x) on `handaug export coco`.
#
#     handaug export coco renders.h5 data/hands
#     mim train mmpose docs/examples/mmpose_hand2d.py
#
# OneHand10KDataset serves as the reader: its 21 joints are handaug's, in the same order, and none is swapped in a flip.
# (FreiHandDataset ignores boxes and takes every image for 224 x 224; Rhd2DDataset has another order of joints.)
_base_ = ["mmpose::_base_/default_runtime.py"]

data_root = "data/hands"
input_size = (256, 256)
epochs = 60

codec = dict(type="MSRAHeatmap", input_size=input_size, heatmap_size=(64, 64), sigma=2)

model = dict(
    type="TopdownPoseEstimator",
    data_preprocessor=dict(
        type="PoseDataPreprocessor", mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True
    ),
    backbone=dict(type="ResNet", depth=50, init_cfg=dict(type="Pretrained", checkpoint="torchvision://resnet50")),
    head=dict(
        type="HeatmapHead",
        in_channels=2048,
        out_channels=21,
        loss=dict(type="KeypointMSELoss", use_target_weight=True),
        decoder=codec,
    ),
    test_cfg=dict(flip_test=True, flip_mode="heatmap", shift_heatmap=True),
)

train_pipeline = [
    dict(type="LoadImage"),
    dict(type="GetBBoxCenterScale"),
    dict(type="RandomBBoxTransform", rotate_factor=180, scale_factor=(0.7, 1.3)),
    dict(type="RandomFlip", direction="horizontal"),
    dict(type="TopdownAffine", input_size=input_size),
    dict(type="GenerateTarget", encoder=codec),
    dict(type="PackPoseInputs"),
]
test_pipeline = [
    dict(type="LoadImage"),
    dict(type="GetBBoxCenterScale"),
    dict(type="TopdownAffine", input_size=input_size),
    dict(type="PackPoseInputs"),
]

train_dataloader = dict(
    batch_size=64,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="OneHand10KDataset",
        data_root=data_root,
        data_mode="topdown",
        ann_file="annotations/train.json",
        data_prefix=dict(img="images/train/"),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=4,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type="DefaultSampler", shuffle=False, round_up=False),
    dataset=dict(
        type="OneHand10KDataset",
        data_root=data_root,
        data_mode="topdown",
        ann_file="annotations/val.json",
        data_prefix=dict(img="images/val/"),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = dict(
    batch_size=64,
    num_workers=4,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type="DefaultSampler", shuffle=False, round_up=False),
    dataset=dict(
        type="OneHand10KDataset",
        data_root=data_root,
        data_mode="topdown",
        ann_file="annotations/test.json",
        data_prefix=dict(img="images/test/"),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
val_evaluator = [dict(type="PCKAccuracy", thr=0.2), dict(type="AUC"), dict(type="EPE")]
test_evaluator = val_evaluator

train_cfg = dict(by_epoch=True, max_epochs=epochs, val_interval=5)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(optimizer=dict(type="Adam", lr=5e-4))
param_scheduler = [
    dict(type="LinearLR", begin=0, end=500, start_factor=0.001, by_epoch=False),
    dict(type="MultiStepLR", begin=0, end=epochs, milestones=[40, 52], gamma=0.1, by_epoch=True),
]
auto_scale_lr = dict(base_batch_size=64)
default_hooks = dict(checkpoint=dict(save_best="AUC", rule="greater"))
